"""From samples to a batch: clips are cut or padded to one length, and their arrays copied once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.spans import BoolArray
from av_ssl.layout import IMAGE_MEAN

MEAN_GRAY = round(255 * IMAGE_MEAN)
"""Pixels of padded and of masked frames, which the usual normalisation turns into zero."""
PLACEHOLDER_TOKEN = 4
"""The first id after fairseq's specials: `src_tokens` tells fairseq-generate lengths, not symbols."""
AudioFrames = NDArray[np.float32] | NDArray[np.int16]
"""Filterbanks float32 `[T, 104]`, or the samples under each video frame, int16 `[T, 640]`."""


@dataclass(frozen=True)
class Sample:
    """One clip, T frames in each stream that was loaded."""

    index: int
    """In the data set."""
    utt_id: str
    audio: AudioFrames | None
    audio_clean: AudioFrames | None
    """`audio` without noise."""
    video: NDArray[np.uint8] | None
    """`[T, H, W]`; a view that may be memory-mapped or have negative strides."""
    labels: Sequence[Tensor]
    """int64: the transcript `[L]`, or for each set of frame labels one `[T]`."""
    video_mask: BoolArray | None = None
    """bool `[T]`, True on frames that are mean gray in the batch; `video` itself is never written."""
    waveform: NDArray[np.int16] | None = None
    """Audio `[T, 640]` without noise, for speech teachers."""
    teachers: Sequence[NDArray[np.float16] | None] = ()
    """Stored targets of each speech teacher, `[n, D]`; None for one that runs in the training step."""

    @property
    def frames(self) -> int:
        """T; of the video if both streams are there."""
        stream = self.audio if self.video is None else self.video
        assert stream is not None
        return len(stream)

    def cut(self, labelled: int) -> Sample:
        """The first `labelled` frames: the last ones (less than 0.1 s) have no label if the window of the
        labels' features does not fit."""
        frames = min(self.frames, labelled)
        return replace(
            self,
            audio=None if self.audio is None else self.audio[:frames],
            audio_clean=None if self.audio_clean is None else self.audio_clean[:frames],
            video=None if self.video is None else self.video[:frames],
            video_mask=None if self.video_mask is None else self.video_mask[:frames],
            waveform=None if self.waveform is None else self.waveform[:frames],
            labels=[ids[:frames] for ids in self.labels],
        )


@dataclass(frozen=True)
class Extent:
    """The part of each clip in a batch of T = `frames`: `lengths[b]` frames from frame `starts[b]` on."""

    starts: list[int]
    lengths: list[int]
    frames: int

    @classmethod
    def fit(
        cls,
        lengths: Sequence[int],
        max_frames: int | None,
        pad: bool,
        random_crop: bool,
        rng: np.random.Generator,
    ) -> Extent:
        """Pad to the longest clip, or cut to the shortest, but never above `max_frames`.

        Clips that are too long lose their end, or with `random_crop` frames at both ends. All streams and
        labels of a clip are cut in the same place.
        """
        frames = max(lengths) if pad else min(lengths)
        if max_frames is not None:
            frames = min(frames, max_frames)
        excess = [max(0, length - frames) for length in lengths]
        starts = [int(rng.integers(0, spare + 1)) if random_crop else 0 for spare in excess]
        return cls(starts, [min(length, frames) for length in lengths], frames)


def collate_streams(samples: Sequence[Sample], extent: Extent) -> dict[str, Any]:
    """`net_input` without masks and tokens.

    Returns:
        `source`: `audio` float32 `[B, 104, T]`, or int16 `[B, 640 T]` for waveforms, and `video` uint8
        `[B, 1, T, H, W]`, None for a stream that was not loaded; if samples have it, `audio_clean` like
        `audio`, and `waveform` int16 `[B, 640 T]`; `padding_mask` bool `[B, T]`; `frame_index` int64 `[F]`,
        flat indices b*T+t of the real frames.
    """
    source = {
        "audio": _collate_audio([sample.audio for sample in samples], extent),
        "video": _collate_video(samples, extent),
    }
    for name, streams in (
        ("audio_clean", [sample.audio_clean for sample in samples]),
        ("waveform", [sample.waveform for sample in samples]),
    ):
        clean = _collate_audio(streams, extent)
        if clean is not None:
            source[name] = clean
    real = np.arange(extent.frames) < np.asarray(extent.lengths)[:, None]
    return {
        "source": source,
        "padding_mask": torch.from_numpy(~real),
        "frame_index": torch.from_numpy(np.flatnonzero(real)),
    }


def _collate_audio(streams: Sequence[AudioFrames | None], extent: Extent) -> Tensor | None:
    first = streams[0]
    if first is None:
        return None
    clips, frames, size = len(streams), extent.frames, first.shape[1]
    if first.dtype == np.int16:  # a waveform: frames follow each other
        batch: NDArray[Any] = np.zeros((clips, frames * size), np.int16)
        rows = batch.reshape(clips, frames, size)
    else:
        batch = np.zeros((clips, size, frames), np.float32)
        rows = batch.swapaxes(1, 2)
    for row, stream, start, length in zip(rows, streams, extent.starts, extent.lengths, strict=True):
        assert stream is not None
        row[:length] = stream[start : start + length]
    return torch.from_numpy(batch)


def _collate_video(samples: Sequence[Sample], extent: Extent) -> Tensor | None:
    first = samples[0].video
    if first is None:
        return None
    batch = np.empty((len(samples), 1, extent.frames, *first.shape[1:]), np.uint8)
    for row, sample, start, length in zip(batch, samples, extent.starts, extent.lengths, strict=True):
        assert sample.video is not None
        row[0, :length] = sample.video[start : start + length]
        row[0, length:] = MEAN_GRAY
        if sample.video_mask is not None:
            row[0, :length][sample.video_mask[start : start + length]] = MEAN_GRAY
    return torch.from_numpy(batch)


def collate_text(samples: Sequence[Sample], net_input: dict[str, Any], pad: int, eos: int) -> dict[str, Any]:
    """Add what fairseq's criterions and fairseq-generate read to `net_input`, and return the targets.

    Labels end with `eos`; `prev_output_tokens` is the target with it moved to the front.

    Returns:
        `target` int64 `[B, L]`, padded on the right, and `ntokens`.  No `target_lengths`: fairseq's `ctc`
        criterion would take them for lengths without eos.
    """
    targets = [sample.labels[0] for sample in samples]
    add_lengths(net_input, pad)
    end = torch.tensor([eos])
    net_input["prev_output_tokens"] = pad_right([torch.cat([end, target[:-1]]) for target in targets], pad)
    lengths = torch.tensor([len(target) for target in targets])
    return {"target": pad_right(targets, pad), "ntokens": int(lengths.sum())}


def add_lengths(net_input: dict[str, Any], pad: int) -> None:
    """Add the lengths for fairseq's generators: `src_tokens` int64 `[B, T]`, placeholders that end in `pad`,
    and `src_lengths` `[B]`."""
    padding_mask = net_input["padding_mask"]
    tokens = torch.full_like(padding_mask, PLACEHOLDER_TOKEN, dtype=torch.int64)
    net_input["src_tokens"] = tokens.masked_fill_(padding_mask, pad)
    net_input["src_lengths"] = (~padding_mask).sum(1)


def collate_frame_labels(labels: Sequence[Tensor], extent: Extent, pad: int) -> Tensor:
    """Labels int64 `[B, T]` of the frames in the batch, padded on the right."""
    batch = torch.full((len(labels), extent.frames), pad, dtype=torch.int64)
    for row, ids, start, length in zip(batch, labels, extent.starts, extent.lengths, strict=True):
        row[:length] = ids[start : start + length]
    return batch


def pad_right(rows: Sequence[Tensor], pad: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad)
