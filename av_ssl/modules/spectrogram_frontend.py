"""Auditory front-end for speakers and emotions: a thin ResNet over log mel energies, 100 Hz to 25 Hz.

A quarter of ResNet-34's channels, as speaker recognisers have it (Chung et al., 2020, "Thin ResNet-34"); two
of its strides shorten time to the rate of video, the others frequency alone [ours].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.modules.masked_norm import MaskedBatchNorm
from av_ssl.modules.mel import LogMel

STACK = 4
"""Spectrogram frames in a video frame."""
FILTERBANK_BANDS = 26
"""Of the stacked filterbanks that the data pipeline makes."""


class SpectrogramBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; strides are (frequency, time)."""

    def __init__(self, channels_in: int, channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = MaskedBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = MaskedBatchNorm(channels)
        self.downsample: nn.Module | None = None
        if stride != (1, 1) or channels_in != channels:
            self.downsample = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.bn_downsample = MaskedBatchNorm(channels)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """``x [B, C, F, T]`` -> ``[B, C', F', T']``; ``keep [B, 1, 1, T']`` is of the output's frames."""
        shortcut = x if self.downsample is None else self.bn_downsample(self.downsample(x), keep)
        # Convolutions let sound run into the padding; the norm behind each clears it again.
        y = F.relu(self.bn1(self.conv1(x) * keep, keep))
        return F.relu(self.bn2(self.conv2(y) * keep, keep) + shortcut)


class SpectrogramResNet(nn.Module):
    """Stacked filterbanks or waveforms at 25 Hz -> one feature vector a frame.

    Args:
        output_dim: channels of the features.
        bands: mel bands: 26 of stacked filterbanks; any number of waveforms.
        width: channels of the first of four stages; each of the others has twice as many as the one before.
        blocks: residual blocks of each stage.
        subtract_mean: take away each band's mean over the clip, and so the microphone, but loudness, too.
    """

    def __init__(
        self,
        output_dim: int,
        bands: int,
        width: int = 16,
        blocks: Sequence[int] = (3, 4, 6, 3),
        subtract_mean: bool = True,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(f"audio_blocks is {list(blocks)}; give the numbers of blocks of four stages")
        self.bands, self.subtract_mean = bands, subtract_mean
        self.mel = LogMel(bands)
        self.input_norm = MaskedBatchNorm(bands)
        self.stem = nn.Conv2d(1, width, 3, (2, 2), 1, bias=False)
        self.stem_norm = MaskedBatchNorm(width)
        strides = ((1, 1), (2, 2), (2, 1), (2, 1))
        self.stages = nn.ModuleList()
        channels_in, rows = width, -(-bands // 2)
        for stage, (count, stride) in enumerate(zip(blocks, strides, strict=True)):
            channels = width << stage
            first = SpectrogramBlock(channels_in, channels, stride)
            rest = [SpectrogramBlock(channels, channels, (1, 1)) for _ in range(count - 1)]
            self.stages.append(nn.ModuleList([first, *rest]))
            channels_in, rows = channels, -(-rows // stride[0])
        self.proj = nn.Linear(channels_in * rows, output_dim)

    def forward(self, audio: Tensor, padding_mask: Tensor) -> Tensor:
        """Compute the features.

        Args:
            audio: filterbanks ``[B, 4 * bands, T]``, or a waveform ``[B, 640 T]``.
            padding_mask: bool ``[B, T]``, True on padding.

        Returns:
            ``[B, T, C]``; zero before the projection on padding.
        """
        keep = (~padding_mask).float()[:, None, None]
        x = self.spectrogram(audio)
        half, whole = keep.repeat_interleave(2, -1), keep.repeat_interleave(STACK, -1)
        x = x[:, :, None] * whole
        if self.subtract_mean:
            mean = x.sum(-1, keepdim=True) / whole.sum(-1, keepdim=True).clamp(min=1)
            x = (x - mean) * whole
        dtype = self.proj.weight.dtype
        x = self.input_norm(x, whole).transpose(1, 2).to(dtype)  # bands were channels
        x = F.relu(self.stem_norm(self.stem(x) * half.to(dtype), half))
        for number, stage in enumerate(self.stages):
            frames = half if number == 0 else keep
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, frames.to(dtype))
        return self.proj(x.flatten(1, 2).transpose(1, 2))

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Log mel energies float32 ``[B, bands, 4 T]``."""
        if audio.dim() == 2:
            return self.mel(audio)
        batch, channels, frames = audio.shape
        if channels != STACK * self.bands:
            raise ValueError(f"audio of {channels} channels, not {STACK} x {self.bands}")
        unstacked = audio.float().view(batch, STACK, self.bands, frames)
        return unstacked.permute(0, 2, 3, 1).reshape(batch, self.bands, frames * STACK)
