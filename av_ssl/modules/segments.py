"""Cutting the streams of a batch into segments, by the index tensors that the data workers drew up."""

from __future__ import annotations

from torch import Tensor

from av_ssl.modules.waveform_frontend import FRAME_SAMPLES


def cut_audio(audio: Tensor, frames: Tensor, padding_mask: Tensor) -> Tensor:
    """Filterbanks ``[B, C, T]`` -> ``[N, C, L]``, or a waveform ``[B, 640 T]`` -> ``[N, 640 L]``.

    Args:
        audio: of the batch.
        frames: int64 ``[N, L]``, flat indices b*T+t.
        padding_mask: bool ``[N, L]``, True on frames that come out as zero.
    """
    real = ~padding_mask[..., None]
    if audio.dim() == 2:
        return (audio.reshape(-1, FRAME_SAMPLES)[frames] * real).flatten(1)
    return (audio.transpose(1, 2).flatten(0, 1)[frames] * real).transpose(1, 2)


def cut_video(video: Tensor, frames: Tensor) -> Tensor:
    """Pictures ``[B, 1, T, H, W]`` -> ``[N, 1, L, H, W]``; front-ends leave out padded ones themselves."""
    return video.flatten(0, 2)[frames][:, None]
