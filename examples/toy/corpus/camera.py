"""The head's motion, light and the camera's noise, none of which means anything."""

import cv2
import numpy as np
from numpy.typing import NDArray

from corpus.look import CANVAS
from corpus.warp import Floats

FRAME_SPAN = 192.0  # canvas pixels that a frame shows at zoom 1
_PIVOT = (CANVAS / 2, CANVAS / 2 + 2)  # the head turns about the nose
NOISE = 1.5  # grey levels, standard deviation
_MARGIN = 32  # pixels by which the noise is larger than a frame


def head_motion(frames: int, frame_rate: float, size: int, rng: np.random.Generator) -> Floats:
    """Slow roll, shift and zoom: affine matrices `[T, 2, 3]` from the canvas to a frame of `size` pixels."""
    seconds = np.arange(frames) / frame_rate
    roll = rng.uniform(-3, 3) + _sway(seconds, 2.0, 0.7, rng)  # degrees
    right = rng.uniform(-6, 6) + _sway(seconds, 3.0, 0.6, rng)  # canvas pixels
    down = rng.uniform(-4, 4) + _sway(seconds, 2.5, 0.8, rng)
    zoom = rng.uniform(0.95, 1.08) * (1 + _sway(seconds, 0.012, 0.4, rng))
    scale = size / FRAME_SPAN
    matrices = np.empty((frames, 2, 3), np.float32)
    for t in range(frames):
        matrix = cv2.getRotationMatrix2D(_PIVOT, roll[t], zoom[t] * scale)
        matrix[:, 2] += size / 2 + np.array([right[t], down[t]]) * scale - CANVAS / 2
        matrices[t] = matrix
    return matrices


def _sway(seconds: Floats, amount: float, fastest: float, rng: np.random.Generator) -> Floats:
    """Sum of three sines between 0.1 and `fastest` Hz."""
    strength, rate, phase = rng.normal(0, 0.6, 3), rng.uniform(0.1, fastest, 3), rng.uniform(0, 2 * np.pi, 3)
    sines = np.sin(2 * np.pi * rate * seconds[:, None] + phase)
    return amount * np.asarray(sines @ strength, np.float64)


def light(frames: int, rng: np.random.Generator) -> Floats:
    """Brightness factor `[T]`, slowly changing by up to 5 %."""
    return 1 + 0.05 * np.sin(np.linspace(0, rng.uniform(2, 8), frames) + rng.uniform(0, 2 * np.pi))


class CameraNoise:
    """Grey noise for a clip's frames, each another part of one larger image: drawing new noise is slow."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        side = size + _MARGIN
        grey = np.round(NOISE * rng.standard_normal((side, side), np.float32)).astype(np.int16)
        self._image = np.repeat(grey[..., None], 3, axis=2)
        self._size, self._rng = size, rng

    def __call__(self) -> NDArray[np.int16]:
        """Noise int16 `[size, size, 3]` for the next frame."""
        top, left = self._rng.integers(_MARGIN, size=2)
        return self._image[top : top + self._size, left : left + self._size]
