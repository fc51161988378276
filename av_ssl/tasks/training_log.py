"""What a training prints for people: a summary at its start, an estimate of its duration, the time left.

fairseq prints the entire list of modules and a line for each shared parameter; they are left out, unless the
environment has ``LOGLEVEL=DEBUG``.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from fairseq.logging import metrics
from torch import nn

from av_ssl.layout import FRAME_RATE
from av_ssl.manifest import clips_in_both

logger = logging.getLogger(__name__)

NOISE = ("detected shared parameter", "num. expert model params")
NOISY = ("fairseq_cli.train", "fairseq.trainer")
FIRST_ESTIMATE = 10  # updates
WINDOW = 200  # updates whose mean duration is that of those left


def for_people(record: logging.LogRecord) -> bool:
    """Whether a record of fairseq's log is shown."""
    return not isinstance(record.msg, nn.Module) and not str(record.msg).startswith(NOISE)


class TrainingLog:
    """Logs a summary, and with each update ``hours_left``, which any of fairseq's log formats shows.

    Args:
        root: the entire configuration of the command.
        clock: returns seconds.
    """

    def __init__(self, root: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.root, self.clock = root, clock
        self.model = ""
        self.updates = 0  # of the entire training
        self.started = False
        self.ends: deque[float] = deque(maxlen=WINDOW + 1)
        if os.environ.get("LOGLEVEL", "").upper() != "DEBUG":
            for name in NOISY:
                logging.getLogger(name).addFilter(for_people)

    def describe_model(self, name: str, model: nn.Module) -> None:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        every, trained = sum(size for size, _ in sizes), sum(size for size, grad in sizes if grad)
        self.model = f"{name}, {every / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M of them trained"

    def start(self, dataset: Any, batches: int, others: Mapping[str, Any]) -> None:
        """Log the summary, once, and a warning of clips that training and validation share.

        Args:
            dataset: of training.
            batches: of an epoch on this device.
            others: all data sets by their split.
        """
        if self.started:
            return
        self.started = True
        options = self.root.optimization
        an_epoch = ceil(batches / options.update_freq[0])
        ends = (options.max_update, an_epoch * options.max_epoch)
        self.updates = min((end for end in ends if end > 0), default=0)
        hours = dataset.sizes.sum() / FRAME_RATE / 3600
        logger.info("data: %d clips, %.2f hours, %d updates an epoch", len(dataset), hours, an_epoch)
        logger.info("model: %s", self.model)
        for split, other in others.items():
            if other is not dataset and (both := clips_in_both(dataset.clips, other.clips)):
                logger.warning(
                    "%d of %d clips of %s are in training, too (id or file; e.g. %s): results are too good",
                    len(both), len(other), split, both[0].id,
                )  # fmt: skip
        if self.updates:
            logger.info("training: %d updates = %.1f epochs", self.updates, self.updates / an_epoch)

    def end_update(self, done: int) -> None:
        """Log the time left after ``done`` updates; the first one, which starts workers, does not count."""
        self.ends.append(self.clock())
        if len(self.ends) < 2 or not self.updates:
            return
        seconds = (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)
        hours = seconds * max(0, self.updates - done) / 3600
        # Without weight, so that not the mean of an interval is shown but the last value.
        metrics.log_scalar("hours_left", hours, weight=0, priority=860, round=3)
        if len(self.ends) == FIRST_ESTIMATE + 1:
            model = self.root.model  # a struct refuses `get` of keys that it lacks
            frozen = model.freeze_finetune_updates if "freeze_finetune_updates" in model else 0
            slower = f"; slower once the encoder is trained, after {frozen}" if done <= frozen else ""
            logger.info(
                "estimated duration: %.2f s an update%s, %.2f hours left", seconds, slower, hours
            )  # fmt: skip
