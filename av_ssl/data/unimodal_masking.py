"""Masks for two students of one stream each (RAVEn, Haliassos et al., 2023, section 3; BRAVEn, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from av_ssl.data.spans import SpanMask, draw_spans


class UnimodalMasks(TypedDict):
    """Masks of a batch of B clips of T frames (padding included)."""

    audio: Tensor
    """bool `[B, T]`, True on masked audio frames (640 samples each)."""
    video: Tensor
    """bool `[B, T]`, True on masked video frames."""
    audio_index: Tensor
    """int64 `[N]`, flat indices b*T+t of the masked audio frames, in order."""
    video_index: Tensor
    """int64 `[M]`, those of the masked video frames."""


@dataclass(frozen=True)
class UnimodalMasking:
    """Masks of both streams, drawn independently of each other unless they are `shared`.

    RAVEn's are `SpanMask(0.2, 3, min_spans=1)` for either stream.  Padding is never masked; with
    `equal_counts` of the spans every clip has as many masked frames as the others.

    Raises ValueError when shared masks have two settings.
    """

    audio: SpanMask
    video: SpanMask
    shared: bool = False

    def __post_init__(self) -> None:
        if self.shared and self.audio != self.video:
            raise ValueError(
                "one mask for both streams needs equal settings: set the video's probability and length as "
                f"for audio ({self.audio.probability}, {self.audio.length})"
            )

    def draw(
        self, lengths: Sequence[int], frames: int, rng: np.random.Generator, training: bool = True
    ) -> UnimodalMasks:
        """Draw for B clips of `lengths` real frames in a batch of T = `frames`; validation has masks, too."""
        audio = draw_spans(lengths, frames, self.audio, rng)
        video = audio.copy() if self.shared else draw_spans(lengths, frames, self.video, rng)
        return {
            "audio": torch.from_numpy(audio),
            "video": torch.from_numpy(video),
            "audio_index": torch.from_numpy(np.flatnonzero(audio)),
            "video_index": torch.from_numpy(np.flatnonzero(video)),
        }
