"""A photograph -> the face of one speaker: another shape, other colours, other lips.

There are two photographs only, scikit-image's astronaut and matplotlib's Grace Hopper; a new speaker is a new
warp and new colours of a known face, never a new face. Both are files of their packages, so nothing is
downloaded. Each is turned and scaled so that the eyes lie at fixed places of a square canvas, and mirrored
too: four portraits.
"""

from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np

from corpus import warp
from corpus.script import Traits
from corpus.warp import Floats, Image

CANVAS = 256  # pixels, side of a portrait
EYE_DISTANCE = 64.0  # pixels between the outer corners of the eyes on the canvas
EYES_ABOVE_MIDDLE = 20.0  # pixels, so that the middle of the canvas is on the nose

# Points of the 468-point face mesh: outer corners of the person's eyes, and rings of the lips, eleven points
# each from image left to image right.
RIGHT_EYE, LEFT_EYE = 33, 263
UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
# Eyes, nose, chin, cheeks, jaw, brow, mouth.
_SHAPE_POINTS = [RIGHT_EYE, LEFT_EYE, 1, 152, 234, 454, 172, 397, 10, 13]
_CORNERS = np.array([[0, 0], [CANVAS - 1, 0], [0, CANVAS - 1], [CANVAS - 1, CANVAS - 1]], np.float64)
_STEP = 8  # pixels between the places where the warp is computed

PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "astronaut": ("skimage", "data", "astronaut.png"),
    "grace_hopper": ("matplotlib", "mpl-data", "sample_data", "grace_hopper.jpg"),
}


class PhotographError(RuntimeError):
    """A photograph is not where its package keeps it, or no face is found in it."""


class Portrait(NamedTuple):
    """RGB `image` `[CANVAS, CANVAS, 3]`, eyes at fixed places, and its `landmarks` `[468, 2]` (x, y)."""

    name: str
    image: Image
    landmarks: Floats


def load_portraits(find_landmarks: Callable[[Image], Floats | None]) -> list[Portrait]:
    """The portraits, each followed by its mirror image.

    `find_landmarks` gives the 468 points of the largest face of an image, or None. Raises `PhotographError`.
    """
    portraits = []
    for name in PHOTOGRAPHS:
        photograph = _read(name)
        for suffix, image in (("", photograph), ("_mirrored", np.ascontiguousarray(photograph[:, ::-1]))):
            landmarks = find_landmarks(image)
            if landmarks is None:
                raise PhotographError(f"no face is found in the photograph {name}: check the face mesh")
            portraits.append(_align(name + suffix, image, landmarks[:, :2].astype(np.float64)))
    return portraits


def _read(name: str) -> Image:
    package, *path = PHOTOGRAPHS[name]
    try:
        encoded = resources.files(package).joinpath(*path).read_bytes()
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    except (ImportError, OSError, cv2.error) as error:
        raise PhotographError(
            f"{package}: cannot read {'/'.join(path)} ({error}): pip install 'av_ssl[toy]'"
        ) from error


def _align(name: str, image: Image, landmarks: Floats) -> Portrait:
    right, left = landmarks[RIGHT_EYE], landmarks[LEFT_EYE]
    x, y = left - right
    scale = EYE_DISTANCE / np.hypot(x, y)
    cos, sin = scale * x / np.hypot(x, y), scale * y / np.hypot(x, y)
    rotation = np.array([[cos, sin], [-sin, cos]])
    place = np.array([CANVAS / 2, CANVAS / 2 - EYES_ABOVE_MIDDLE])
    matrix = np.column_stack([rotation, place - rotation @ (right + left) / 2])
    if scale < 1:  # against aliasing
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    aligned = cv2.warpAffine(
        image, matrix, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    moved = landmarks @ rotation.T + matrix[:, 2]
    return Portrait(name, np.asarray(aligned, np.uint8), moved.astype(np.float32))


class Look(NamedTuple):
    """A speaker's face at rest: RGB `image` `[CANVAS, CANVAS, 3]`, `landmarks` `[468, 2]`, and habits."""

    image: Image
    landmarks: Floats
    mouth_width: float  # factor on the photograph's
    lip_thickness: float  # factor on the photograph's
    mobility: float  # factor on how far the jaw drops
    teeth: Floats  # RGB
    tongue: Floats  # RGB
    cavity: Floats  # RGB


def draw_look(portrait: Portrait, rng: np.random.Generator, traits: Traits | None = None) -> Look:
    """Another person's face from a portrait; with `traits` these decide shape, size and darkness."""
    image, landmarks = _reshape(portrait, rng, traits)
    return Look(
        image=_tint_lips(_recolour(image, rng, traits), landmarks, rng),
        landmarks=landmarks,
        mouth_width=rng.uniform(0.94, 1.06),
        lip_thickness=rng.uniform(0.85, 1.2),
        mobility=rng.uniform(0.85, 1.15),
        teeth=np.array([212.0, 205.0, 185.0]) * rng.uniform(0.85, 1.05),
        tongue=np.array([170.0, 90.0, 95.0]) * rng.uniform(0.85, 1.1),
        cavity=np.array([62.0, 22.0, 28.0]) * rng.uniform(0.7, 1.2),
    )


def _reshape(portrait: Portrait, rng: np.random.Generator, traits: Traits | None) -> tuple[Image, Floats]:
    """Longer or wider, and every part of the face moved a little."""
    middle = portrait.landmarks.mean(0)
    points = portrait.landmarks[_SHAPE_POINTS].astype(np.float64)
    stretch = rng.uniform(-0.08, 0.08, 2)
    if traits is not None:
        stretch = 0.06 * np.array([traits.size - traits.length, traits.size + traits.length])
    moves = (points - middle) * stretch + rng.normal(0, 2.5, points.shape)
    points = np.vstack([points, _CORNERS])
    moves = np.vstack([moves, np.zeros_like(_CORNERS)])
    nodes = warp.grid(np.arange(0, CANVAS, _STEP) + (_STEP - 1) / 2)
    back = warp.evaluate(warp.fit(points + moves, -moves), points + moves, nodes.reshape(-1, 2))
    image = warp.look_up(portrait.image, warp.grid(np.arange(CANVAS)), warp.finely(back, nodes, CANVAS))
    landmarks = portrait.landmarks + warp.evaluate(warp.fit(points, moves), points, portrait.landmarks)
    return image, landmarks.astype(np.float32)


def _recolour(image: Image, rng: np.random.Generator, traits: Traits | None) -> Floats:
    """Other gamma, exposure and white balance; values from 0 to 1."""
    gamma, exposure = rng.uniform(0.75, 1.35), rng.uniform(0.85, 1.15)
    balance = 1 + rng.uniform(-0.08, 0.08, 3)
    if traits is not None:
        gamma = 1.05 + 0.35 * traits.age
    return (image / 255.0) ** gamma * exposure * balance


def _tint_lips(image: Floats, landmarks: Floats, rng: np.random.Generator) -> Image:
    """Darker, redder lips: the photographs' own hardly differ from skin in a small grayscale frame."""
    lips = np.zeros(image.shape[:2], np.uint8)
    for outer, inner in ((UPPER_OUTER, UPPER_INNER), (LOWER_OUTER, LOWER_INNER)):
        ring = np.vstack([landmarks[outer], landmarks[inner][::-1]])
        cv2.fillPoly(lips, [np.round(ring * 8).astype(np.int32)], 255, cv2.LINE_AA, shift=3)
    amount = cv2.GaussianBlur(lips, (0, 0), 1.0)[..., None] / 255.0 * rng.uniform(0.1, 0.5)
    return np.asarray(np.clip(image * (1 - amount * np.array([0.2, 0.62, 0.55])) * 255, 0, 255), np.uint8)
