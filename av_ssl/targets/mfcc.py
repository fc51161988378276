"""Kaldi's MFCC: the features whose clusters are the targets of AV-HuBERT's first iteration.

The settings are those of AV-HuBERT's recipe (Shi et al., 2022; as HuBERT, Hsu et al., 2021): Kaldi's defaults
without dither, 13 coefficients, the zeroth instead of the energy, of a waveform scaled to +-1, with their
first and second differences over time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.mel import mel, mel_corners, triangles
from av_ssl.data.reading import read_wave
from av_ssl.errors import MediaError
from av_ssl.layout import SAMPLE_RATE
from av_ssl.manifest import Clip

MFCC_RATE = 100
"""Frames a second."""
MFCC_DIM = 39
COEFFICIENTS = 13
WINDOW = 400
"""25 ms in samples."""
HOP = SAMPLE_RATE // MFCC_RATE
FFT_SIZE = 512
PRE_EMPHASIS = 0.97
MEL_FILTERS = 23
LOWEST_HZ, HIGHEST_HZ = 20.0, SAMPLE_RATE / 2
LIFTER = 22.0
ENERGY_FLOOR = float(np.finfo(np.float32).eps)
DELTA_REACH = 2
"""Frames on either side from which a difference is computed."""


@dataclass(frozen=True)
class MfccSource:
    """MFCC with differences: a :class:`~av_ssl.targets.feature_shards.FeatureSource`."""

    streams: ClassVar[tuple[str, ...]] = ("audio",)
    rate: ClassVar[int] = MFCC_RATE
    dim: ClassVar[int] = MFCC_DIM

    def settings(self) -> dict[str, Any]:
        return {"features": "mfcc"}

    def open(self, rank: int = 0) -> MfccSource:
        return self

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """MFCC ``[n, 39]`` of a clip; raise MediaError if it cannot be read or is shorter than a window."""
        assert clip.audio is not None
        wave = read_wave(clip.audio)
        if len(wave) < WINDOW:
            raise MediaError(f"{clip.audio}: has {len(wave)} samples, fewer than a window of {WINDOW}")
        return mfcc(wave)


def mfcc(wave: NDArray[np.int16]) -> NDArray[np.float32]:
    """MFCC with first and second differences, ``[n, 39]`` at 100 Hz, of 16 kHz samples ``[N]``.

    Only complete windows of 25 ms count: n = 1 + (N - 400) // 160, and 0 for N < 400.
    """
    if len(wave) < WINDOW:
        return np.zeros((0, MFCC_DIM), np.float32)
    static = cepstra(torch.from_numpy(np.asarray(wave, np.float32) / 32768))
    first = differences(static)
    return torch.cat([static, first, differences(first)], dim=1).numpy()


def cepstra(wave: Tensor) -> Tensor:
    """The 13 coefficients ``[n, 13]`` of samples ``[N]`` scaled to +-1."""
    x = wave.unfold(0, WINDOW, HOP)
    x = x - x.mean(dim=1, keepdim=True)
    # Kaldi filters each window separately, its first sample against itself.
    x = x - PRE_EMPHASIS * torch.cat([x[:, :1], x[:, :-1]], dim=1)
    power = torch.fft.rfft(x * window(), FFT_SIZE).abs().square()
    energies = (power @ mel_filters()).clamp(min=ENERGY_FLOOR)
    return energies.log() @ cosine_transform()


def differences(x: Tensor) -> Tensor:
    """Slope of the regression line through five frames, ``[n, C]`` -> ``[n, C]``; ends are repeated."""
    steps = torch.arange(-DELTA_REACH, DELTA_REACH + 1, dtype=x.dtype)
    padded = F.pad(x.T[None], (DELTA_REACH, DELTA_REACH), mode="replicate")[0]
    return (padded.unfold(1, len(steps), 1) @ steps).T / steps.square().sum()


@cache
def window() -> Tensor:
    """Kaldi's "povey" window: a Hann window to the power of 0.85, ``[400]``."""
    return torch.hann_window(WINDOW, periodic=False).pow(0.85)


@cache
def mel_filters() -> Tensor:
    """Triangles ``[257, 23]``, linear in mel (not in Hz), equally wide between 20 and 8000 Hz."""
    bins = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    corners = mel_corners(MEL_FILTERS, LOWEST_HZ, HIGHEST_HZ)
    return torch.from_numpy(triangles(mel(bins), mel(corners)))


@cache
def cosine_transform() -> Tensor:
    """Orthonormal DCT-II with the lifter of 22 that raises high coefficients, ``[23, 13]``."""
    order = np.arange(COEFFICIENTS)
    angle = np.pi / MEL_FILTERS * (np.arange(MEL_FILTERS) + 0.5)
    matrix = np.cos(angle[:, None] * order) * math.sqrt(2 / MEL_FILTERS)
    matrix[:, 0] = math.sqrt(1 / MEL_FILTERS)
    matrix *= 1 + 0.5 * LIFTER * np.sin(np.pi * order / LIFTER)
    return torch.from_numpy(matrix.astype(np.float32))
