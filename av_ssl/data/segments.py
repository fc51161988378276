"""Segments of clips: windows of equal length that an encoder sees one by one.

They are drawn up in the data workers, as index tensors, so that the device need not be waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor


class SegmentBatch(TypedDict):
    """N segments of L frames of a batch of B clips of T frames, at most K a clip."""

    frames: Tensor
    """int64 `[N, L]`, flat indices b*T+t; any index on padding."""
    padding_mask: Tensor
    """bool `[N, L]`, True on padding: clips that are shorter than a segment."""
    frame_index: Tensor
    """int64 `[F]`, flat indices n*L+l of the real frames."""
    slots: Tensor
    """int64 `[N]`, flat indices b*K+k."""
    empty: Tensor
    """bool `[B, K]`, True where a clip has no k-th segment."""


@dataclass(frozen=True)
class Segmentation:
    """Windows of `length` frames, every `hop` frames; the last one is moved back to end with the clip.

    Raises ValueError when either is not positive, or when frames between windows would be lost.
    """

    length: int = 25
    hop: int = 25

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length:
            raise ValueError(
                f"segments of {self.length} frames every {self.hop} frames: both must be positive, and "
                "task.segment_hop not above task.segment_frames"
            )

    @classmethod
    def of(cls, segment_frames: int, segment_hop: int) -> Segmentation | None:
        """As the task's options say: None for whole clips, and a hop of 0 is the length."""
        return cls(segment_frames, segment_hop or segment_frames) if segment_frames > 0 else None

    def starts(self, frames: int) -> list[int]:
        """First frames of the segments of a clip; one where the clip is not longer than a segment.

        >>> [len(Segmentation(25, 12).starts(n)) for n in (10, 25, 26, 50, 75, 100, 103)]
        [1, 1, 2, 4, 6, 8, 8]
        """
        last = frames - self.length
        if last <= 0:
            return [0]
        return [*range(0, last, self.hop), last]

    def draw_up(self, lengths: Sequence[int], frames: int) -> SegmentBatch:
        """The segments of clips of `lengths` frames in a batch of T = `frames`."""
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
