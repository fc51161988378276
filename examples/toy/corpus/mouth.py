"""How the mouth stands -> where the lips are, in pixels of the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corpus.look import LOWER_INNER, LOWER_OUTER, UPPER_INNER, UPPER_OUTER, Look
from corpus.photographs import EYE_DISTANCE

Floats = NDArray[np.float64]

POINTS = 11  # on each curve
MIDDLE = POINTS // 2
ACROSS = np.linspace(-1, 1, POINTS)  # from the left corner of the mouth to the right

# In eye distances.
_WIDEST_REST = 0.30  # half width: the astronaut smiles, and a smile is no rest
_JAW_DROP, _LIP_LIFT, _LIP_TUCK, _CORNER_DROP = 0.26, 0.12, 0.05, 0.04
_THINNEST_UPPER, _THINNEST_LOWER = 0.035, 0.055


@dataclass(frozen=True)
class Lips:
    """Curves `[T, POINTS, 2]` (x, y) of the lips' edges, and what moved them, `[T]` in pixels."""

    upper_outer: Floats
    upper_inner: Floats
    lower_inner: Floats
    lower_outer: Floats
    jaw_drop: Floats
    lift: Floats

    @property
    def gap(self) -> Floats:
        """Distance between the inner edges at the middle, `[T]` pixels."""
        return self.lower_inner[:, MIDDLE, 1] - self.upper_inner[:, MIDDLE, 1]

    @property
    def width(self) -> Floats:
        """Distance between the corners, `[T]` pixels."""
        return self.upper_outer[:, -1, 0] - self.upper_outer[:, 0, 0]


class Mouth:
    """The lips of one speaker."""

    def __init__(self, look: Look) -> None:
        left, right = look.landmarks[UPPER_OUTER[0]], look.landmarks[UPPER_OUTER[-1]]
        self.middle: Floats = (left + right).astype(np.float64) / 2
        rings = [look.landmarks[ring].astype(np.float64) - self.middle for ring in _RINGS]
        upper_outer, upper_inner, lower_inner, lower_outer = (ring[:, 1] for ring in rings)
        half_width = float(np.linalg.norm(right - left)) / 2
        self.half_width = min(half_width, _WIDEST_REST * EYE_DISTANCE) * look.mouth_width
        upper = max(_THINNEST_UPPER * EYE_DISTANCE, upper_inner[MIDDLE] - upper_outer[MIDDLE])
        lower = max(_THINNEST_LOWER * EYE_DISTANCE, lower_outer[MIDDLE] - lower_inner[MIDDLE])
        self.upper_thickness, self.lower_thickness = upper * look.lip_thickness, lower * look.lip_thickness
        self.mobility = look.mobility
        opening = lower_inner[MIDDLE] - upper_inner[MIDDLE]
        # Where teeth show in the photograph, the lips would meet just below the upper lip.
        self.seam = upper_inner[MIDDLE] + min(opening / 2, 0.03 * EYE_DISTANCE)
        self.corner = 0.35 * (upper_outer[0] + upper_outer[-1]) / 2 + 0.65 * self.seam

    def lips(self, track: Floats, corner_lift: float = 0.0) -> Lips:
        """The lips in every frame of a viseme track `[T, 7]`, corners `corner_lift` eye distances higher."""
        jaw, lift, width, thickness, _, _, tuck = (column[:, None] for column in track.T)
        drop = _JAW_DROP * EYE_DISTANCE * np.maximum(jaw, 0) * self.mobility
        rise = _LIP_LIFT * EYE_DISTANCE * np.maximum(lift, 0)
        corner = self.corner + _CORNER_DROP * EYE_DISTANCE * np.maximum(jaw, 0) - corner_lift * EYE_DISTANCE
        seam = corner + (self.seam - corner) * (1 - ACROSS**2)
        bow = 1 - np.abs(ACROSS) ** 2.2
        upper_inner = seam - (rise + 0.1 * drop) * bow
        lower_inner = np.maximum(seam + (drop - _LIP_TUCK * EYE_DISTANCE * tuck) * bow, upper_inner)

        fullness = np.sqrt(1 - ACROSS**2)
        cupids_bow = 1 - 0.18 * np.exp(-((ACROSS / 0.12) ** 2))
        upper_outer = upper_inner - self.upper_thickness * thickness * fullness * cupids_bow
        lower_outer = lower_inner + self.lower_thickness * thickness * (1 - 0.45 * tuck) * fullness
        outer_x = self.half_width * width * ACROSS
        inner_x = outer_x * np.where(width > 0.7, 0.90, 0.82)

        def curve(x: Floats, y: Floats) -> Floats:
            return np.stack([x, y], -1) + self.middle

        return Lips(
            curve(outer_x, upper_outer),
            curve(inner_x, upper_inner),
            curve(inner_x, lower_inner),
            curve(outer_x, lower_outer),
            drop[:, 0],
            rise[:, 0],
        )


_RINGS = (UPPER_OUTER, UPPER_INNER, LOWER_INNER, LOWER_OUTER)
