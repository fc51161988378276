"""Clips with one class each (speakers, emotions): list of classes, segments, dataset.

Ids count from 0 in the order of a plain list: a fairseq dictionary would reserve the first four.  Segments
are windows of equal length that an encoder receives one by one; data workers compute them as index tensors,
so that the device does not wait.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.collate import Extent, Sample
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.io import composed, read_text
from av_ssl.manifest import Clip

logger = logging.getLogger(__name__)

CLASSES = "class_names"  # key of a checkpoint's task state
UNKNOWN = -1  # id of a name that is not in the list, e.g. of a speaker who is not in training


class ClassList:
    """Names of classes; their ids are their positions.  ``origin`` is the file, for errors."""

    def __init__(self, names: Sequence[str], origin: str) -> None:
        self.names = [composed(name) for name in names]
        self.origin = origin
        self.ids = {name: number for number, name in enumerate(self.names)}
        if not self.names:
            raise DataError(f"{origin}: has no class; write one name a line")
        if len(self.ids) < len(self.names):
            twice = next(name for number, name in enumerate(self.names) if self.ids[name] != number)
            raise DataError(f"{origin}: has {twice} twice; give every class its own name")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def load(cls, path: Path) -> ClassList:
        """Read a list, e.g. ``classes.emo.txt``; raises DataError if it is missing, empty or not UTF-8."""
        fix = "write one name a line (av-ssl data manifest does), or check task.label and task.label_dir"
        lines = read_text(path, fix, "the list of classes cannot be read").split("\n")
        return cls([line.strip() for line in lines if line.strip()], str(path))

    def read(self, path: Path, clips: Sequence[Clip], training: bool) -> NDArray[np.int64]:
        """Read the ids ``[N]`` of clips from a label file, one name a line; -1 for unknown names.

        Labels for ``training`` must have known names, two or more.
        """
        labels = LabelFile(path, clips)
        names = [labels.line(number) for number in range(len(clips))]
        ids = np.array([self.ids.get(name, UNKNOWN) for name in names], np.int64)
        unknown = int((ids == UNKNOWN).sum())
        if unknown and training and unknown == len(ids):
            raise DataError(
                f"{path}: none of its labels, such as {names[0]!r} on line 1, is in {self.origin} "
                f"({', '.join(self.names[:5])}, ...); use the list that belongs to these labels"
            )
        found = set(ids.tolist())
        lacking = [name for name, number in self.ids.items() if training and number not in found]
        if training and len(self) - len(lacking) < 2:
            raise DataError(f"{path}: all clips are of one class, {names[0]!r}; training needs two")
        if lacking:
            logger.warning("%s: no clip is of %s, which cannot be learned", path, ", ".join(lacking[:5]))
        if unknown:
            logger.warning(
                "%s: the classes of %d of %d clips are not in %s and do not count for accuracy",
                path, unknown, len(ids), self.origin,
            )  # fmt: skip
        return ids


class SegmentBatch(TypedDict):
    """N segments of L frames of a batch of B clips of T frames, at most K per clip."""

    frames: Tensor
    """int64 ``[N, L]``, flat indices b*T+t; any index on padding."""
    padding_mask: Tensor
    """bool ``[N, L]``, True on padding: clips that are shorter than a segment."""
    frame_index: Tensor
    """int64 ``[F]``, flat indices n*L+l of the real frames."""
    slots: Tensor
    """int64 ``[N]``, flat indices b*K+k."""
    empty: Tensor
    """bool ``[B, K]``, True where a clip has no k-th segment."""


@dataclass(frozen=True)
class Segmentation:
    """Windows of ``length`` frames, every ``hop`` frames; the last one is moved back to end with the clip."""

    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length:
            raise DataError(
                f"task.segment_frames={self.length}, task.segment_hop={self.hop}: both must be positive, and "
                "the hop not above the frames"
            )

    @classmethod
    def of(cls, segment_frames: int, segment_hop: int) -> Segmentation | None:
        """From the task's keys: None for whole clips; a hop of 0 is the length."""
        return cls(segment_frames, segment_hop or segment_frames) if segment_frames > 0 else None

    def starts(self, frames: int) -> list[int]:
        """First frames of the segments of a clip; one segment if the clip is not longer than it.

        >>> [len(Segmentation(25, 12).starts(n)) for n in (10, 25, 26, 50, 75, 100, 103)]
        [1, 1, 2, 4, 6, 8, 8]
        """
        last = frames - self.length
        if last <= 0:
            return [0]
        return [*range(0, last, self.hop), last]

    def segments(self, lengths: Sequence[int], frames: int) -> SegmentBatch:
        """Compute the segments of clips of ``lengths`` frames in a batch of T = ``frames``."""
        starts = [self.starts(length) for length in lengths]
        most = max(map(len, starts))
        clip = np.repeat(np.arange(len(lengths)), [len(each) for each in starts])
        time = np.concatenate(starts)[:, None] + np.arange(self.length)
        real = time < np.asarray(lengths)[clip][:, None]
        empty = np.arange(most) >= np.array([len(each) for each in starts])[:, None]
        return {
            "frames": torch.from_numpy(clip[:, None] * frames + np.minimum(time, frames - 1)),
            "padding_mask": torch.from_numpy(~real),
            "frame_index": torch.from_numpy(np.flatnonzero(real)),
            "slots": torch.from_numpy(np.flatnonzero(~empty)),
            "empty": torch.from_numpy(empty),
        }


ORDER = 2  # separates the random order of clips from the draws of ``dataset.CLIP`` and ``BATCH``


class ClassificationDataset(AudioVisualDataset):
    """Clips, the ids of their classes, and their segments.

    Batches differ from epoch to epoch: they decide which clips share batch-norm statistics.

    Args:
        classes: ``[N]``, -1 where the class is unknown; None without labels.
        segmentation: None for whole clips.
        class_balanced: in training, draw every class equally often; the epoch keeps its length.
    """

    def __init__(
        self,
        *,
        classes: NDArray[np.int64] | None,
        segmentation: Segmentation | None = None,
        class_balanced: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if classes is not None and len(classes) != len(self.clips):
            raise ValueError(f"{len(classes)} classes for {len(self.clips)} clips: give one for each")
        self.classes = np.full(len(self.clips), -1) if classes is None else classes
        self.segmentation = segmentation
        self.class_balanced = class_balanced and self.train

    def _targets(
        self, samples: Sequence[Sample], extent: Extent, net_input: dict[str, Any]
    ) -> dict[str, Any]:
        if self.segmentation is not None:
            net_input["segments"] = self.segmentation.segments(extent.lengths, extent.frames)
        return {"target": torch.from_numpy(self.classes[[sample.index for sample in samples]])}

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return not self.train

    def ordered_indices(self) -> NDArray[np.int64]:
        """Longest clips first, by the frames that a batch uses; equally long ones in random order."""
        rng = self._generator(ORDER)
        indices = self._balanced(rng) if self.class_balanced else np.arange(len(self))
        if self.shuffle:
            rng.shuffle(indices)
        return indices[np.argsort(-self.num_tokens_vec(indices), kind="stable")]

    def _balanced(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw as many clips as there are, equally many of each class (one more of some); a clip is repeated
        only after all others of its class."""
        known = np.unique(self.classes[self.classes >= 0])
        members = [np.flatnonzero(self.classes == each) for each in known]
        if not members:
            return np.arange(len(self))
        counts = np.full(len(members), len(self) // len(members))
        counts[rng.permutation(len(members))[: len(self) % len(members)]] += 1
        drawn = []
        for clips, count in zip(members, counts, strict=True):
            rounds = [rng.permutation(clips) for _ in range(-(-count // len(clips)))]
            drawn.append(np.concatenate(rounds)[:count] if rounds else clips[:0])
        return np.concatenate(drawn)
