"""Audio features: log mel filterbank at 100 Hz, four frames stacked to the 25 Hz of the video.

The filterbank is that of `python_speech_features.logfbank` with its defaults (AV-HuBERT, Shi et al., 2022),
so that published models hear what they were trained on.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.reading import SAMPLE_RATE

FILTERS = 26
STACK = 4
FEATURE_DIM = FILTERS * STACK
WINDOW = 400
"""25 ms in samples."""
HOP = 160
"""10 ms in samples."""
FFT_SIZE = 512
PRE_EMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float64).eps)
"""Stands for an energy of exactly zero, before the logarithm."""


@cache
def mel_filters() -> Tensor:
    """Triangular filters `[257, 26]` float32, equally wide in mel between 0 and 8000 Hz."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    edges = np.floor((FFT_SIZE + 1) * hertz / SAMPLE_RATE)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(FFT_SIZE // 2 + 1)[:, None]
    rising = (bins - low) / (middle - low)
    falling = (high - bins) / (high - middle)
    return torch.from_numpy(np.where(bins < middle, rising, falling).clip(min=0).astype(np.float32))


def log_filterbank(wave: NDArray[np.int16]) -> NDArray[np.float32]:
    """Log mel energies `[n, 26]` at 100 Hz of 16 kHz samples `[N]`, N > 0, on the int16 scale.

    25 ms rectangular windows every 10 ms; n = 1 + ceil((N - 400) / 160), at least 1; the last window is
    padded with zeros.
    """
    x = torch.from_numpy(np.asarray(wave, np.float32))
    x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
    frames = 1 + max(0, math.ceil((len(x) - WINDOW) / HOP))
    x = torch.nn.functional.pad(x, (0, (frames - 1) * HOP + WINDOW - len(x))).unfold(0, WINDOW, HOP)
    power = torch.fft.rfft(x, FFT_SIZE).abs().square() / FFT_SIZE
    energy = power @ mel_filters()
    return torch.where(energy == 0, ENERGY_FLOOR, energy).log().numpy()


def stack_frames(x: NDArray[np.float32], count: int = STACK) -> NDArray[np.float32]:
    """`[n, C]` -> `[ceil(n / count), count * C]`, frame-major, the end padded with zeros."""
    padded = np.pad(x, ((0, -len(x) % count), (0, 0)))
    return padded.reshape(-1, count * x.shape[1])


def normalize_frames(x: NDArray[np.float32], eps: float = 1e-5) -> NDArray[np.float32]:
    """Layer norm of each row, without learned scale; a row of zeros stays zero."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + np.float32(eps))


def audio_features(wave: NDArray[np.int16], frames: int | None, normalize: bool) -> NDArray[np.float32]:
    """Stacked filterbanks `[T, 104]` at 25 Hz.

    Args:
        wave: int16 `[N]` at 16 kHz.
        frames: T, the number of decoded video frames: rows of zeros are appended or rows dropped at the end;
            None keeps what the audio gives, ceil(n / 4).
        normalize: layer norm of each frame, after stacking and fitting to `frames`.
    """
    features = stack_frames(log_filterbank(wave))
    if frames is not None:
        features = np.pad(features[:frames], ((0, max(0, frames - len(features))), (0, 0)))
    return normalize_frames(features) if normalize else features
