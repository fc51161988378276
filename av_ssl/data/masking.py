"""The student's masks, drawn in the data workers, so that the training step never waits for the device.

`StreamMasking` serves fused encoders, `UnimodalMasking` two students of one stream each (RAVEn, Haliassos et
al., 2023, section 3; BRAVEn, 2024). What replaces masked frames is decided in `av_ssl.modules.masked_frames`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.spans import BoolArray, SpanMask, check_choice, draw_spans

Stream = Literal["audio", "video"]
LOSS_FRAMES = ("union", "surviving", "all")
REPLACING_FRAMES = ("same_other_seq", "same_seq")


class Masking(Protocol):
    """Draws the masks of each batch, see `DataNeeds`."""

    def draw(
        self, lengths: Sequence[int], frames: int, rng: np.random.Generator, training: bool = True
    ) -> Mapping[str, object]:
        """`net_input["masks"]` of B clips of `lengths` real frames in a batch of T = `frames`."""
        ...


class MaskBatch(TypedDict):
    """Masks of a batch of B clips of T frames (padding included)."""

    audio: Tensor
    """bool `[B, T]`, True on masked audio frames."""
    video: Tensor
    """bool `[B, T]`, True on masked video frames."""
    video_source: Tensor | None
    """int64 `[B, T]`, the flat index b*T+t of the frame shown in each place; None if features are masked."""
    zeroed: bool
    """Whether masked input frames are zeroed instead: in a batch of one clip (AV-HuBERT's rule)."""
    loss_index: Tensor
    """int64 `[N]`, flat indices b*T+t of the frames in the loss."""
    rest_index: Tensor
    """int64 `[M]`, flat indices of the other real frames."""
    dropped: Stream | None
    """The stream that is dropped from the entire batch."""


@dataclass(frozen=True)
class StreamMasking:
    """Masks of both streams, modality dropout, and the frames in the loss.

    Args:
        audio, video: spans, drawn independently of each other.
        modality_dropout: probability that a batch loses a stream (training only).
        audio_dropout: probability that it is the audio.
        loss_on: `union`: frames masked in either stream; `surviving`: in a stream that was not dropped;
            `all`: every real frame.
        video_margin: frames by which video spans are widened on either side, because the 3-D convolution
            spreads their content to the features of neighbours. They do not count as masked video in the
            loss.
        shared: one mask, by the settings of `audio`, for both streams (AV-HuBERT's `masking_type: feature`).
        replacement: what masked input frames of the video are replaced by: frames from elsewhere in the clip
            (`same_seq`), or the same frames of another clip in the batch (`same_other_seq`); None if features
            are masked.

    Raises ValueError if a setting is out of range or would leave the loss without frames.
    """

    audio: SpanMask
    video: SpanMask
    modality_dropout: float
    audio_dropout: float
    loss_on: str = "union"
    video_margin: int = 0
    shared: bool = False
    replacement: str | None = "same_seq"

    def __post_init__(self) -> None:
        if self.replacement is not None:
            check_choice("selection_type", self.replacement, REPLACING_FRAMES)
        check_choice("loss_on", self.loss_on, LOSS_FRAMES)
        if self.shared and self.audio != self.video:
            raise ValueError(
                "one mask on fused features needs equal settings for both streams: set mask_prob_image and "
                f"mask_length_image as for audio ({self.audio.probability}, {self.audio.length})"
            )
        if self.shared and self.video_margin:
            raise ValueError(
                "a margin of video spans has no meaning for one mask on fused features: set it to 0"
            )
        masked = [spans.probability > 0 for spans in (self.audio, self.video)]
        needed = all(masked) if self.loss_on == "surviving" and self.modality_dropout > 0 else any(masked)
        if self.loss_on != "all" and not needed:
            raise ValueError(
                f"loss_on={self.loss_on} with mask probabilities {self.audio.probability} (audio) and "
                f"{self.video.probability} (video) leaves batches without a loss: raise them "
                "or set loss_on=all"
            )

    def draw(
        self, lengths: Sequence[int], frames: int, rng: np.random.Generator, training: bool = True
    ) -> MaskBatch:
        """Draw for B clips of `lengths` real frames in a batch of T = `frames`.

        Streams are dropped only in `training`; masks are drawn for validation, too.
        """
        dropped = self._draw_dropped(rng) if training else None
        real = np.arange(frames) < np.asarray(lengths)[:, None]
        audio = draw_spans(lengths, frames, self.audio, rng)
        video = audio if self.shared else draw_spans(lengths, frames, self.video, rng)
        counted = self._counted(audio, video, real, dropped)
        video = widen(video, self.video_margin) & real
        return {
            "audio": torch.from_numpy(audio),
            "video": torch.from_numpy(video.copy()),
            "video_source": self._draw_source(video, rng),  # drawn last: it does not change the other draws
            "zeroed": len(lengths) == 1,
            "loss_index": torch.from_numpy(np.flatnonzero(counted)),
            "rest_index": torch.from_numpy(np.flatnonzero(real & ~counted)),
            "dropped": dropped,
        }

    def _draw_dropped(self, rng: np.random.Generator) -> Stream | None:
        drops, which = rng.random(2)
        if drops >= self.modality_dropout:
            return None
        return "audio" if which < self.audio_dropout else "video"

    def _draw_source(self, video: BoolArray, rng: np.random.Generator) -> Tensor | None:
        if self.replacement is None:
            return None
        clips, frames = video.shape
        if self.replacement == "same_seq":
            return torch.from_numpy(replacement_frames(video, rng) + np.arange(clips)[:, None] * frames)
        own = np.arange(clips * frames).reshape(video.shape)
        shift = int(rng.integers(1, clips)) if clips > 1 else 0
        return torch.from_numpy(np.where(video, np.roll(own, -shift, axis=0), own))

    def _counted(
        self, audio: BoolArray, video: BoolArray, real: BoolArray, dropped: Stream | None
    ) -> BoolArray:
        if self.loss_on == "all":
            return real
        if self.loss_on == "surviving" and dropped is not None:
            return video if dropped == "audio" else audio
        return audio | video


def widen(mask: BoolArray, margin: int) -> BoolArray:
    """`mask` `[B, T]` with `margin` more frames on either side of every span."""
    wide = mask.copy()
    for shift in range(1, margin + 1):
        wide[:, :-shift] |= mask[:, shift:]
        wide[:, shift:] |= mask[:, :-shift]
    return wide


def replacement_frames(mask: BoolArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each frame of `[B, T]` the frame that replaces it: itself, or another one if it is masked.

    A run [s, s+l) is replaced by the frames from an offset drawn uniformly from [0, T) without [s-l, s+l), so
    that the two do not overlap; from 0 if nothing is left; frames end at T-1 (AV-HuBERT's `selection_type:
    same_seq`).
    """
    frames = mask.shape[1]
    source = np.tile(np.arange(frames), (len(mask), 1))
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    for row, start, end in zip(rows, starts, ends, strict=True):
        length = end - start
        before = max(0, start - length)
        choices = before + frames - end
        offset = int(rng.integers(0, choices)) if choices else 0
        if offset >= before and choices:
            offset += end - before
        source[row, start:end] = np.minimum(offset + np.arange(length), frames - 1)
    return source


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
    """Masks of both streams, drawn independently of each other.

    RAVEn's are `SpanMask(0.2, 3, min_spans=1)` for either stream. Padding is never masked; with
    `equal_counts` of the spans all clips have equally many masked frames.
    """

    audio: SpanMask
    video: SpanMask

    def draw(
        self, lengths: Sequence[int], frames: int, rng: np.random.Generator, training: bool = True
    ) -> UnimodalMasks:
        """Draw for B clips of `lengths` real frames in a batch of T = `frames`; validation has masks, too."""
        audio = draw_spans(lengths, frames, self.audio, rng)
        video = draw_spans(lengths, frames, self.video, rng)
        return {
            "audio": torch.from_numpy(audio),
            "video": torch.from_numpy(video),
            "audio_index": torch.from_numpy(np.flatnonzero(audio)),
            "video_index": torch.from_numpy(np.flatnonzero(video)),
        }
