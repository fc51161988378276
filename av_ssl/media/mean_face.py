"""The face onto which others are aligned: where crops get their place, size and turn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.media.layouts import IBUG

PUBLISHED_CROP = 96  # pixels of the published mean face's square that a crop of the mouth shows
PUBLISHED_WINDOW = 12  # frames


@dataclass(frozen=True)
class MeanFace:
    """Places of a layout's five stable points, and what goes with them.

    points: `[5, 2]`, x right, y down, from the middle between the eyes, in distances between the eyes'
    centres. mouth_scale: that distance over the side of a mouth crop. window: frames over which landmarks are
    averaged.
    """

    points: NDArray[np.float64]
    mouth_scale: float
    window: int


OWN = MeanFace(
    points=np.array([[-0.722, -0.0125], [-0.278, 0.0125], [0.278, 0.0125], [0.722, -0.0125], [0.0, 0.758]]),
    mouth_scale=54 / 96,
    window=13,
)
"""The average mesh of six people, made symmetric; scale and window near to AV-HuBERT's (Shi et al., 2022)."""


def load_mean_face(path: Path) -> MeanFace:
    """AV-HuBERT's own mean face, a `.npy` of 68 points `[68, 2]` in a square of 256 pixels.

    With it crops get the place, size and smoothing that AV-HuBERT's published checkpoints expect (Shi et al.,
    2022, data preparation): 96 of the 256 pixels around the mouth, landmarks averaged over 12 frames. Raises
    DataError when the file is something else.
    """
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as an array ({error}); give the .npy of the mean face"
        ) from error
    if points.shape != (IBUG.count, 2):
        raise DataError(
            f"{path}: holds {list(points.shape)} numbers, a mean face is [68, 2] (x, y in pixels)"
        )
    stable = points[list(IBUG.stable)].astype(np.float64)
    right, left = stable[:2].mean(0), stable[2:4].mean(0)
    distance = float(np.linalg.norm(left - right))
    if not np.isfinite(points).all() or distance < 1:
        raise DataError(f"{path}: is no face: its eyes are {distance:.2f} pixels apart")
    return MeanFace((stable - (right + left) / 2) / distance, distance / PUBLISHED_CROP, PUBLISHED_WINDOW)
