"""Mel filter banks: triangles whose corners are equally spaced on the mel scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def mel(hertz: Array) -> Array:
    """Frequencies in mel, as in HTK and Kaldi (up to a constant factor)."""
    return 2595 * np.log10(1 + hertz / 700)


def mel_corners(bands: int, lowest: float, highest: float) -> Array:
    """Corners of the triangles in Hz ``[bands + 2]``; a triangle spans three consecutive ones."""
    low, high = mel(np.array([lowest, highest]))
    return 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)


def triangles(positions: Array, corners: Array) -> NDArray[np.float32]:
    """Filters `[N, bands]` of height 1, linear in whatever unit is given.

    ``positions`` ``[N]`` are those of the bins of a spectrum: in Hz, in mel, or bin numbers; ``corners``
    ``[bands + 2]`` those of the triangles in the same unit.
    """
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (positions[:, None] - low) / (middle - low)
    falling = (high - positions[:, None]) / (high - middle)
    return np.minimum(rising, falling).clip(min=0).astype(np.float32)
