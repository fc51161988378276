"""Audio front-end for speakers and emotions: a thin ResNet on log-mel energies, from 100 Hz to 25 Hz.

It has a quarter of ResNet-34's channels, as in speaker recognition (Chung et al., 2020, "Thin ResNet-34");
two of its strides shorten time to the video's rate, the others only frequency [ours].  Log-mel energies are
computed on the device, and batch norms take their statistics from real frames only.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.data.mel import mel_corners, triangles
from av_ssl.layout import SAMPLE_RATE
from av_ssl.modules.convolution import Conv2d

WINDOW = 400
"""25 ms in samples."""
HOP = 160
"""10 ms in samples."""
FFT_SIZE = 512
MEL_RANGE = 20.0, 7600.0
"""Hz."""
ENERGY_FLOOR = 1e-6
"""Of samples on the scale -1..1; about -120 dB of full scale."""
INT16_SCALE = 1 / 32768


class LogMel(nn.Module):
    """Waveform -> log mel energies at 100 Hz, four frames for each 40 ms (640 samples).

    Frame k lies around sample 160 k + 80: none looks beyond the clip by more than half a window, where there
    is silence.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int = 80) -> None:
        super().__init__()
        # Not in checkpoints: they follow from the settings.
        frequencies = np.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
        filters = torch.from_numpy(triangles(frequencies, mel_corners(bands, *MEL_RANGE)))  # [257, bands]
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """``[B, 640 T]`` int16, or float on the scale -1..1 -> float32 ``[B, bands, 4 T]``."""
        x = wave.float() * INT16_SCALE if wave.dtype == torch.int16 else wave.float()
        around = (WINDOW - HOP) // 2
        frames = F.pad(x, (around, around)).unfold(-1, WINDOW, HOP) * self.window.float()
        power = torch.fft.rfft(frames, FFT_SIZE).abs().square()
        return (power @ self.filters.float()).clamp(min=ENERGY_FLOOR).log().transpose(1, 2)


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch norm over maps ``[B, C, F, T]`` of which some frames t are padding.

    Padding is zero in what comes out, as convolutions pad, so a clip gives the same in every batch.
    """

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # type: ignore[override]
        """``x [B, C, F, T]``, zero on padding; ``keep`` float ``[B, 1, 1, T]``, 1 on real frames."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide, keep = x.float(), keep.float()  # half precision cannot count
        if self.training:
            count = keep.sum() * x.size(2)
            mean = wide.sum((0, 2, 3)) / count
            centred = (wide - mean[:, None, None]) * keep
            variance = centred.square().sum((0, 2, 3)) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        else:
            centred = wide - self.running_mean.float()[:, None, None]
            variance = self.running_var.float()
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((centred * scale[:, None, None] + self.bias[:, None, None]) * keep).to(x.dtype)


class RowBatchNorm(nn.BatchNorm1d):
    """Batch norm of ``[B, C]`` that takes its running statistics where a batch has a single row, which has no
    variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


STACK = 4
"""Spectrogram frames in a video frame."""
FILTERBANK_BANDS = 26
"""Of the stacked filterbanks that the data pipeline makes."""


class SpectrogramBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; strides are (frequency, time)."""

    def __init__(self, channels_in: int, channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = MaskedBatchNorm(channels)
        self.conv2 = Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = MaskedBatchNorm(channels)
        self.downsample: nn.Module | None = None
        if stride != (1, 1) or channels_in != channels:
            self.downsample = Conv2d(channels_in, channels, 1, stride, bias=False)
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
        self.stem = Conv2d(1, width, 3, (2, 2), 1, bias=False)
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
        """Filterbanks ``[B, 4 * bands, T]``, or a waveform ``[B, 640 T]`` -> ``[B, T, C]``.

        The features are zero before the projection on padding, ``padding_mask`` bool ``[B, T]``.
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
