"""The two photographs that every face is made from: scikit-image's astronaut and matplotlib's Grace Hopper.

Both lie inside their packages, so nothing is downloaded. Each is turned and scaled so that the eyes lie at
fixed places of a square canvas, and mirrored too, which makes four portraits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

CANVAS = 256  # pixels, side of a portrait
EYE_DISTANCE = 64.0  # pixels between the outer corners of the eyes on the canvas
EYES_ABOVE_MIDDLE = 20.0  # pixels, so that the middle of the canvas is on the nose

RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners in the 468-point face mesh; right and left are the person's

_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "astronaut": ("skimage", ("data", "astronaut.png")),
    "grace_hopper": ("matplotlib", ("mpl-data", "sample_data", "grace_hopper.jpg")),
}

Picture = NDArray[np.uint8]
FindLandmarks = Callable[[Picture], NDArray[np.float32] | None]


class PhotographError(RuntimeError):
    """A photograph is not where its package keeps it, or no face is found in it."""


@dataclass(frozen=True)
class Portrait:
    """RGB `picture` `[CANVAS, CANVAS, 3]`, eyes at fixed places, and its `landmarks` `[468, 2]` (x, y)."""

    name: str
    picture: Picture
    landmarks: NDArray[np.float32]


def load_portraits(find_landmarks: FindLandmarks) -> list[Portrait]:
    """The portraits, each followed by its mirror image.

    `find_landmarks` gives the 468 points of the largest face of a picture, or None. Raises `PhotographError`.
    """
    portraits = []
    for name in _FILES:
        photograph = _read(name)
        for suffix, picture in (("", photograph), ("_mirrored", np.ascontiguousarray(photograph[:, ::-1]))):
            landmarks = find_landmarks(picture)
            if landmarks is None:
                raise PhotographError(
                    f"no face is found in the photograph {name}: is the face mesh the one it expects?"
                )
            portraits.append(_align(name + suffix, picture, landmarks[:, :2].astype(np.float64)))
    return portraits


def _read(name: str) -> Picture:
    package, path = _FILES[name]
    try:
        encoded = resources.files(package).joinpath(*path).read_bytes()
    except (ImportError, OSError) as error:
        raise PhotographError(
            f"the photograph {'/'.join(path)} of {package} is not there: pip install 'av_ssl[toy]'"
        ) from error
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise PhotographError(
            f"the photograph {'/'.join(path)} of {package} is no picture: reinstall {package}"
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _align(name: str, picture: Picture, landmarks: NDArray[np.float64]) -> Portrait:
    right, left = landmarks[RIGHT_EYE], landmarks[LEFT_EYE]
    x, y = left - right
    scale = EYE_DISTANCE / np.hypot(x, y)
    cos, sin = scale * x / np.hypot(x, y), scale * y / np.hypot(x, y)
    rotation = np.array([[cos, sin], [-sin, cos]])
    place = np.array([CANVAS / 2, CANVAS / 2 - EYES_ABOVE_MIDDLE])
    matrix = np.column_stack([rotation, place - rotation @ (right + left) / 2])
    if scale < 1:  # as a smaller picture would alias
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 / scale), np.uint8)
    aligned = cv2.warpAffine(
        picture, matrix, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    moved = landmarks @ rotation.T + matrix[:, 2]
    return Portrait(name, np.asarray(aligned, np.uint8), moved.astype(np.float32))
