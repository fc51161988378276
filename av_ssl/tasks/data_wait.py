"""The share of training time spent waiting for batches, and a warning with advice if it is high.

fairseq only logs at level DEBUG, without a number, that its buffer of batches is empty.

Measured is the time of the training process in `next()` of the batch iterator. It is the GPU's idle time,
except for the end of an optimizer step: fairseq fetches all micro-batches of an update before it computes the
first one, and reads the gradient norm, which waits for the device, before it takes the step. So no
synchronisation is added. Validation and checkpoints are not part of the measured time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from fairseq.data.iterators import CountingIterator, EpochBatchIterator
from fairseq.logging import metrics

logger = logging.getLogger(__name__)

TOLERATED_SHARE = 0.1
FIRST_WINDOW = 100  # updates


@dataclass
class Stretch:
    """Some updates: duration and waiting time in seconds, real frames, number."""

    seconds: float = 0.0
    waited: float = 0.0
    frames: int = 0
    updates: int = 0

    @property
    def share(self) -> float:
        """Share of the duration spent waiting, 0 to 1."""
        return self.waited / self.seconds if self.seconds > 0 else 0.0

    def __iadd__(self, other: Stretch) -> Stretch:
        self.seconds += other.seconds
        self.waited += other.waited
        self.frames += other.frames
        self.updates += other.updates
        return self


class DataWaitMeter:
    """Logs `data_wait`, the share (0 to 1) of training time spent waiting for batches; warns above 10 %.

    A warning follows a window of 100 updates, and each warning doubles the window, so that a slow disk is not
    reported thousands of times. The first update does not count: it waits for the workers to start. Each rank
    measures its own process; a rank that waits delays the others.

    Args:
        window: updates before the first possible warning.
        clock: returns seconds.
    """

    def __init__(self, window: int = FIRST_WINDOW, clock: Callable[[], float] = time.perf_counter) -> None:
        self.window = window
        self.clock = clock
        self.workers = 0
        self._started = False
        self._update_began: float | None = None
        self._update = Stretch()
        self._recent = Stretch()

    def watch(self, epochs: EpochBatchIterator) -> WatchedEpochs:
        self.workers = epochs.num_workers
        return WatchedEpochs(epochs, self)

    def fetch(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        before = self.clock()
        if self._update_began is None:
            self._update_began = before
        batch = next(batches)
        self._update.waited += self.clock() - before
        self._update.frames += real_frames(batch)
        return batch

    def end_update(self) -> None:
        """Log the update that ends here; called after the optimizer step."""
        if self._update_began is None:
            return  # a step repeated with the same batches, as after an overflow under AMP
        update, self._update = self._update, Stretch()
        update.seconds, update.updates = self.clock() - self._update_began, 1
        self._update_began = None
        if not self._started:
            self._started = True
            return
        metrics.log_scalar("data_wait", update.share, weight=update.seconds, priority=850, round=3)
        self._recent += update
        if self._recent.updates >= self.window:
            self._warn(self._recent)
            self._recent = Stretch()

    def _warn(self, recent: Stretch) -> None:
        if recent.share <= TOLERATED_SHARE:
            return
        computed = max(recent.seconds - recent.waited, 1e-9)
        logger.warning(
            "training waited for data %.0f %% of the last %d updates (%.1f of %.1f s): with "
            "dataset.num_workers=%d this process got %.0f frames/s, the model could take %.0f. Raise it to "
            "about %d if the machine has idle cores, or store mouth crops as .npy on a local disk, which are "
            "read faster than .mp4 (benchmarks/data_path.py measures both)",
            100 * recent.share, recent.updates, recent.waited, recent.seconds,
            self.workers, recent.frames / recent.seconds, recent.frames / computed,
            self._workers_needed(recent.waited, computed),
        )  # fmt: skip
        self.window *= 2

    def _workers_needed(self, waited: float, computed: float) -> int:
        """Number of workers that read as fast as the model computes; they also work while it computes."""
        busy = self.workers * (waited + computed) if self.workers else waited
        return max(self.workers + 1, math.ceil(busy / computed))


class Meter(Protocol):
    """What fetches a batch from the iterator that it is given."""

    def fetch(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch; raises StopIteration."""


class OnlyRead:
    """Passes over batches of which no clip can be read; fairseq would score the first one again for each."""

    def fetch(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        return next(filter(None, batches))


class WatchedEpochs:
    """fairseq's iterator over epochs, with a meter on its batches."""

    def __init__(self, epochs: EpochBatchIterator, meter: Meter) -> None:
        self._epochs = epochs
        self._meter = meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epochs, name)

    def __len__(self) -> int:
        return len(self._epochs)

    @property
    def first_batch(self) -> dict[str, Any]:
        """The first of which a clip can be read: fairseq takes it where a rank has none left."""
        epochs = self._epochs
        clips = ([epochs.dataset[index] for index in batch] for batch in epochs.frozen_batches)
        return next(filter(None, map(epochs.collate_fn, clips)), {})

    def next_epoch_itr(self, *args: Any, **options: Any) -> WatchedBatches:
        return WatchedBatches(self._epochs.next_epoch_itr(*args, **options), self._meter)


class WatchedBatches:
    """The batches of an epoch, with a meter; position and end are those of fairseq's iterator.

    It is no `CountingIterator`: `take` of two nested ones subtracts a resumed position twice.
    """

    def __init__(self, batches: CountingIterator, meter: Meter) -> None:
        self._batches = batches
        self._meter = meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> WatchedBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        return self._meter.fetch(self._batches)


def real_frames(batch: dict[str, Any]) -> int:
    """Frames of a batch without padding; the empty batch at the end of a rank's data has none."""
    return batch["net_input"]["frame_index"].numel() if batch else 0
