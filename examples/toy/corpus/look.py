"""A portrait -> the face of one speaker: another shape, other colours, other lips.

There are two photographs only, so a new speaker is a new warp and new colours of a known face, never a new
face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from corpus import warp
from corpus.photographs import CANVAS, LEFT_EYE, RIGHT_EYE, Picture, Portrait

# Rings of the lips in the 468-point face mesh, eleven points each from image left to image right.
UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]

_SHAPE_POINTS = [
    RIGHT_EYE,
    LEFT_EYE,
    1,
    152,
    234,
    454,
    172,
    397,
    10,
    13,
]  # eyes, nose, chin, cheeks, jaw, brow, mouth
_CORNERS = np.array([[0, 0], [CANVAS - 1, 0], [0, CANVAS - 1], [CANVAS - 1, CANVAS - 1]], np.float64)
_STEP = 8  # pixels between the places where the warp is worked out


@dataclass(frozen=True)
class Look:
    """A speaker's face at rest: RGB `picture` `[CANVAS, CANVAS, 3]`, `landmarks` `[468, 2]`, and habits."""

    photograph: str
    picture: Picture
    landmarks: NDArray[np.float32]
    mouth_width: float  # factor on the photograph's
    lip_thickness: float  # factor on the photograph's
    mobility: float  # factor on how far the jaw drops
    teeth: NDArray[np.float64]  # RGB
    tongue: NDArray[np.float64]  # RGB
    cavity: NDArray[np.float64]  # RGB


def draw_look(portrait: Portrait, rng: np.random.Generator) -> Look:
    """Another person's face from a portrait."""
    picture, landmarks = _reshape(portrait, rng)
    return Look(
        photograph=portrait.name,
        picture=_tint_lips(_recolour(picture, rng), landmarks, rng),
        landmarks=landmarks,
        mouth_width=rng.uniform(0.94, 1.06),
        lip_thickness=rng.uniform(0.85, 1.2),
        mobility=rng.uniform(0.85, 1.15),
        teeth=np.array([212.0, 205.0, 185.0]) * rng.uniform(0.85, 1.05),
        tongue=np.array([170.0, 90.0, 95.0]) * rng.uniform(0.85, 1.1),
        cavity=np.array([62.0, 22.0, 28.0]) * rng.uniform(0.7, 1.2),
    )


def _reshape(portrait: Portrait, rng: np.random.Generator) -> tuple[Picture, NDArray[np.float32]]:
    """Longer or wider, and every part of the face a little elsewhere."""
    middle = portrait.landmarks.mean(0)
    points = portrait.landmarks[_SHAPE_POINTS].astype(np.float64)
    moves = (points - middle) * rng.uniform(-0.08, 0.08, 2) + rng.normal(0, 2.5, points.shape)
    points = np.vstack([points, _CORNERS])
    moves = np.vstack([moves, np.zeros_like(_CORNERS)])

    axis = np.arange(0, CANVAS, _STEP) + (_STEP - 1) / 2
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    back = warp.evaluate(warp.fit(points + moves, -moves), points + moves, places)
    back = cv2.resize(back.reshape(len(axis), len(axis), 2), (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    pixels = np.stack(np.meshgrid(*[np.arange(CANVAS, dtype=np.float32)] * 2), -1)
    picture = cv2.remap(
        portrait.picture, pixels + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    landmarks = portrait.landmarks + warp.evaluate(warp.fit(points, moves), points, portrait.landmarks)
    return np.asarray(picture, np.uint8), landmarks.astype(np.float32)


def _recolour(picture: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """Other gamma, exposure and white balance; values from 0 to 1."""
    gamma, exposure, balance = (
        rng.uniform(0.75, 1.35),
        rng.uniform(0.85, 1.15),
        1 + rng.uniform(-0.08, 0.08, 3),
    )
    return (picture / 255.0) ** gamma * exposure * balance


def _tint_lips(
    picture: NDArray[np.float64], landmarks: NDArray[np.float32], rng: np.random.Generator
) -> Picture:
    """Darker, redder lips: the photographs' own are too pale to be told from skin in a small grey picture."""
    lips = np.zeros(picture.shape[:2], np.uint8)
    for outer, inner in ((UPPER_OUTER, UPPER_INNER), (LOWER_OUTER, LOWER_INNER)):
        ring = np.vstack([landmarks[outer], landmarks[inner][::-1]])
        cv2.fillPoly(lips, [np.round(ring * 8).astype(np.int32)], 255, cv2.LINE_AA, shift=3)
    amount = cv2.GaussianBlur(lips, (0, 0), 1.0)[..., None] / 255.0 * rng.uniform(0.1, 0.5)
    return np.asarray(np.clip(picture * (1 - amount * np.array([0.2, 0.62, 0.55])) * 255, 0, 255), np.uint8)
