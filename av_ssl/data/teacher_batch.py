"""What speech teachers add to a batch: stored targets, and the frames that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.collate import Extent, Sample
from av_ssl.data.spans import BoolArray

StoredFrames = NDArray[np.float16]


class TeacherInput(Protocol):
    """One teacher, as the data pipeline uses it."""

    @property
    def per_frame(self) -> int:
        """Targets a video frame, r."""

    def read(self, index: int) -> StoredFrames | None:
        """Targets `[n, D]` of a clip of the data set, mapped from disk; None if it runs in training."""

    def available(self, stored: StoredFrames | None, start: int, length: int) -> int:
        """Number of targets of `length` video frames from frame `start` on."""


@dataclass(frozen=True)
class OnlineTeacher:
    """A teacher that runs in the training step, on the part of a clip that is in the batch.

    n video frames have `per_frame` n - `missing` targets.
    """

    per_frame: int
    missing: int

    def read(self, index: int) -> None:
        """Nothing is stored."""

    def available(self, stored: StoredFrames | None, start: int, length: int) -> int:
        """All but those whose window does not fit."""
        return max(0, self.per_frame * length - self.missing)


class TeacherBatch(TypedDict):
    """`net_input["teachers"]`: B clips, T video frames, K teachers."""

    lengths: list[int]
    """Real video frames of each clip."""
    index: list[Tensor]
    """For each teacher int64 `[N]`, flat indices b*T+t of the frames that have all their targets."""
    features: list[Tensor | None]
    """For each teacher float16 `[B, r T, D]`; None if it runs in the training step."""


def collate_teachers(
    samples: Sequence[Sample],
    inputs: Sequence[TeacherInput],
    extent: Extent,
    masks: dict[str, Any] | None = None,
) -> TeacherBatch:
    """Cut the teachers' targets as the clips of the batch are cut.

    A frame counts for a teacher if it is real, all its r targets exist (as in DistillAV's public code), and
    it is in the `loss_index` of `masks`, if there are masks.
    """
    counted = None
    if masks is not None:
        counted = np.zeros(len(samples) * extent.frames, bool)
        counted[masks["loss_index"].numpy()] = True
    index, features = [], []
    for number, teacher in enumerate(inputs):
        stored = [sample.teachers[number] for sample in samples]
        valid = _valid_frames(teacher, stored, extent).reshape(-1)
        index.append(torch.from_numpy(np.flatnonzero(valid if counted is None else valid & counted)))
        features.append(_collate_features(teacher.per_frame, stored, extent))
    return {"lengths": list(extent.lengths), "index": index, "features": features}


def _valid_frames(teacher: TeacherInput, stored: Sequence[StoredFrames | None], extent: Extent) -> BoolArray:
    counts = [
        teacher.available(each, start, length) // teacher.per_frame
        for each, start, length in zip(stored, extent.starts, extent.lengths, strict=True)
    ]
    return np.arange(extent.frames) < np.array(counts)[:, None]


def _collate_features(per_frame: int, stored: Sequence[StoredFrames | None], extent: Extent) -> Tensor | None:
    first = stored[0]
    if first is None:
        return None
    batch = np.zeros((len(stored), per_frame * extent.frames, first.shape[1]), np.float16)
    for row, targets, start, length in zip(batch, stored, extent.starts, extent.lengths, strict=True):
        assert targets is not None
        part = targets[per_frame * start : per_frame * (start + length)]
        row[: len(part)] = part
    return torch.from_numpy(batch)
