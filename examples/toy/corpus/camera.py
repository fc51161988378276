"""Light and the camera's noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOISE = 1.5  # grey levels, standard deviation
_MARGIN = 32  # pixels by which the noise is larger than a frame


def light(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Brightness factor `[T]`, slowly changing by up to 5 %."""
    return 1 + 0.05 * np.sin(np.linspace(0, rng.uniform(2, 8), frames) + rng.uniform(0, 2 * np.pi))


class CameraNoise:
    """Grey noise for a clip's frames, each another part of one larger picture, as drawing it anew is slow."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        side = size + _MARGIN
        grey = np.round(NOISE * rng.standard_normal((side, side), np.float32)).astype(np.int16)
        self._picture = np.repeat(grey[..., None], 3, axis=2)
        self._size, self._rng = size, rng

    def __call__(self) -> NDArray[np.int16]:
        """Noise int16 `[size, size, 3]` for the next frame."""
        top, left = self._rng.integers(_MARGIN, size=2)
        return self._picture[top : top + self._size, left : left + self._size]
