"""Which of a face's points are what, in the two layouts that landmarks come in.

Right and left are the person's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Indices of the points that cropping needs."""

    count: int
    # Outer and inner corner of the right eye, inner and outer corner of the left eye, base of the nose:
    # speech does not move them.
    stable: tuple[int, int, int, int, int]
    lips: tuple[int, ...]  # their mean is the middle of the mouth
    upper_lip: int  # inner edge, middle
    lower_lip: int


MESH = Layout(
    count=468,
    stable=(33, 133, 362, 263, 2),
    lips=(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    upper_lip=13,
    lower_lip=14,
)
"""Face Mesh (Kartynnik et al., 2019); the lips are their outer ring."""

IBUG = Layout(
    count=68,
    stable=(36, 39, 42, 45, 33),
    lips=tuple(range(48, 68)),
    upper_lip=62,
    lower_lip=66,
)
"""The 68 points of iBUG 300-W (Sagonas et al., 2013), which dlib's usual model and AV-HuBERT use."""

LAYOUTS = {layout.count: layout for layout in (MESH, IBUG)}


def layout_of(points: Floats) -> Layout:
    """Layout of `points` `[..., P, D]`, told by P; raises ValueError for another P than 468 or 68."""
    try:
        return LAYOUTS[points.shape[-2]]
    except KeyError:
        raise ValueError(
            f"{points.shape[-2]} points a face; known are {', '.join(map(str, LAYOUTS))}"
        ) from None
