"""From landmarks to crops of constant position, scale and rotation.

As in AV-HuBERT's preparation (Shi et al., 2022, appendix): points are averaged over about half a second,
those that speech does not move are mapped onto a mean face by a similarity transform, and the crop is centred
on the mouth. Landmarks come in two layouts, ``MESH`` and ``IBUG``; right and left are the person's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.io import mapped_array
from av_ssl.media.face_mesh import MIN_SCORE, FaceMesh, Floats, Frame, Region


@dataclass(frozen=True)
class Layout:
    """A layout of landmarks: number of points, and indices of those that cropping needs."""

    count: int
    # Outer and inner corner of the right eye, inner and outer corner of the left eye, base of the nose:
    # speech does not move them.
    stable: tuple[int, int, int, int, int]
    lips: tuple[int, ...]  # their mean is the centre of the mouth
    upper_lip: int  # inner edge, middle
    lower_lip: int


MESH = Layout(
    count=468,
    stable=(33, 133, 362, 263, 2),
    lips=(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    upper_lip=13,
    lower_lip=14,
)
"""Face Mesh (Kartynnik et al., 2019); the lips are the outer ring."""

IBUG = Layout(count=68, stable=(36, 39, 42, 45, 33), lips=tuple(range(48, 68)), upper_lip=62, lower_lip=66)
"""The 68 points of iBUG 300-W (Sagonas et al., 2013), which dlib's usual model and AV-HuBERT use."""

LAYOUTS = {layout.count: layout for layout in (MESH, IBUG)}


def layout_of(points: Floats) -> Layout:
    """Layout of ``points`` ``[..., P, D]``, by P; raises ValueError unless P is 468 or 68."""
    count = points.shape[-2]
    if count not in LAYOUTS:
        raise ValueError(f"{count} points a face; known are {', '.join(map(str, LAYOUTS))}")
    return LAYOUTS[count]


PUBLISHED_CROP = 96  # pixels of the published mean face's square that a crop of the mouth shows
PUBLISHED_WINDOW = 12  # frames


@dataclass(frozen=True)
class MeanFace:
    """The face onto which others are aligned; x right, y down, from the middle between the eyes.

    The unit is the distance between the centres of the eyes.
    """

    points: NDArray[np.float64]  # [5, 2], the stable points
    mouth_scale: float  # the unit divided by the side of a mouth crop
    window: int  # frames over which landmarks are averaged


OWN = MeanFace(
    points=np.array([[-0.722, -0.0125], [-0.278, 0.0125], [0.278, 0.0125], [0.722, -0.0125], [0.0, 0.758]]),
    mouth_scale=54 / 96,
    window=13,
)
"""The average mesh of six people, made symmetric; scale and window as in AV-HuBERT (Shi et al., 2022)."""


def load_mean_face(path: Path) -> MeanFace:
    """Read AV-HuBERT's own mean face, a ``.npy`` of 68 points ``[68, 2]`` in a square of 256 pixels.

    With it crops have the position, scale and smoothing that AV-HuBERT's published checkpoints expect (Shi et
    al., 2022, data preparation): 96 of the 256 pixels around the mouth, landmarks averaged over 12 frames.
    """
    try:
        points = np.array(mapped_array(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give the .npy of the mean face") from error
    if points.shape != (IBUG.count, 2):
        raise DataError(f"{path}: has shape {list(points.shape)}; a mean face is [68, 2], x and y in pixels")
    stable = points[list(IBUG.stable)].astype(np.float64)
    right, left = stable[:2].mean(0), stable[2:4].mean(0)
    distance = float(np.linalg.norm(left - right))
    if not np.isfinite(points).all() or distance < 1:
        raise DataError(f"{path}: is no face: its eyes are {distance:.2f} pixels apart")
    return MeanFace((stable - (right + left) / 2) / distance, distance / PUBLISHED_CROP, PUBLISHED_WINDOW)


REGIONS = ("mouth", "face")
FACE_SCALE = 0.34  # distance of the eyes divided by the side of a crop of the face
FACE_CENTRE = (0.0, 0.5)  # middle of this crop on the mean face
MESH_REGION = 4.1  # side of a mesh region in distances of the eyes, as Face Mesh itself gives it
AGREEMENT = 0.7  # distances of the eyes by which those of the detector may lie apart, both together
INSIDE_POINTS = 16  # points along each side of a crop whose place in the frame is looked up
PATCH, PATCH_SAMPLES = (
    24,
    3,
)  # side of the image by which faces are compared; samples along each of its pixels


def smooth(points: Floats, window: int) -> NDArray[np.float64]:
    """Mean of ``points`` ``[T, P, D]`` over a window centred on each frame; an even one reaches further back.

    At both ends, where the window is not full, a straight line is fitted to its frames: a mean of the frames
    on one side would lag behind a moving head.
    """
    flat = points.reshape(len(points), -1).astype(np.float64)
    before, after = window // 2, (window - 1) // 2
    if len(flat) <= window:
        return _line(flat).reshape(points.shape)
    total = np.concatenate([np.zeros_like(flat[:1]), np.cumsum(flat, axis=0)])
    means = (total[window:] - total[:-window]) / window
    head, tail = _line(flat[:window])[:before], _line(flat[-window:])[window - after :]
    return np.concatenate([head, means, tail]).reshape(points.shape)


def _line(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares straight line through ``values`` ``[T, D]`` over time."""
    time = np.arange(len(values)) - (len(values) - 1) / 2
    slope = time @ values / max(float(time @ time), 1e-9)
    return values.mean(0) + np.outer(time, slope)


def crop_transforms(points: Floats, region: str, size: int, mean_face: MeanFace = OWN) -> NDArray[np.float64]:
    """Affine matrices ``[T, 2, 3]`` from pixels of the frame to pixels of the crop.

    Args:
        points: landmarks ``[T, P, 2 or 3]`` of every frame; P is 468 or 68.
        region: one of REGIONS.
        size: side of the crop, pixels.
        mean_face: the face onto which landmarks are aligned.
    """
    layout = layout_of(points)
    steady = smooth(points[:, [*layout.stable, *layout.lips], :2], mean_face.window)
    stable, lips = steady[:, : len(layout.stable)], steady[:, len(layout.stable) :].mean(1)
    linear, shift = _similarity(stable, mean_face.points)
    if region == "mouth":
        scale = mean_face.mouth_scale * size
        centre = np.einsum("tij,tj->ti", linear, lips) + shift
    else:
        scale = FACE_SCALE * size
        centre = np.broadcast_to(np.array(FACE_CENTRE), shift.shape)
    # Pixel centres lie at whole numbers, so the middle of the crop is at (size - 1) / 2.
    offset = scale * (shift - centre) + (size - 1) / 2
    return np.concatenate([scale * linear, offset[:, :, None]], axis=2)


def _similarity(points: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Scaled rotation ``[T, 2, 2]`` and shift ``[T, 2]`` that map ``points`` ``[T, P, 2]`` to ``target``."""
    mean, target_mean = points.mean(1), target.mean(0)
    source, goal = points - mean[:, None], target - target_mean
    power = np.maximum((source**2).sum((1, 2)), 1e-9)
    cos = (source * goal).sum((1, 2)) / power
    sin = (source[..., 0] * goal[:, 1] - source[..., 1] * goal[:, 0]).sum(1) / power
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return linear, target_mean - np.einsum("tij,tj->ti", linear, mean)


def face_patch(frame: Frame, points: Floats) -> Floats:
    """The aligned face of a frame ``[24, 24]``, mean 0 and norm 1: products are correlations of faces."""
    stable = points[None, list(layout_of(points).stable), :2].astype(np.float64)
    linear, shift = _similarity(stable, OWN.points)
    side = PATCH * PATCH_SAMPLES
    transform = FACE_SCALE * side * np.column_stack([linear[0], shift[0] - FACE_CENTRE])
    transform[:, 2] += side / 2
    face = cv2.warpAffine(frame, transform, (side, side), borderMode=cv2.BORDER_REPLICATE)
    patch = cv2.resize(face, (PATCH, PATCH), interpolation=cv2.INTER_AREA).reshape(PATCH, PATCH, -1)
    patch = patch.mean(-1, dtype=np.float32)
    patch = patch - patch.mean()
    return np.asarray(patch / max(float(np.linalg.norm(patch)), 1e-6), np.float32)


def is_face(mesh: FaceMesh, frame: Frame, points: Floats) -> bool:
    """Whether landmarks lie on an upright face, by our own detector and mesh.

    The mesh alone would take almost anything for a face, the detector misses small and turned ones: where it
    finds none, the mesh decides.
    """
    right, left = (points[list(eye), :2].mean(0) for eye in np.reshape(layout_of(points).stable[:4], (2, 2)))
    across = left - right
    distance = float(np.linalg.norm(across))
    middle = (right + left) / 2 + FACE_CENTRE[1] * np.array([-across[1], across[0]])
    if not distance > 1:
        return False
    region = Region((float(middle[0]), float(middle[1])), MESH_REGION * distance, _angle(across))
    score, turned = (
        mesh.landmarks(frame, replace(region, angle=region.angle + turn))[0] for turn in (0, np.pi)
    )
    faces = [face.key_points[:2] for face in mesh.detect(frame)]  # their eyes
    apart = [
        np.linalg.norm(eyes - [right, left]) / max(1.0, float(np.linalg.norm(eyes[1] - eyes[0])))
        for eyes in faces
    ]
    return score >= MIN_SCORE and score >= turned and min(apart, default=0.0) < AGREEMENT


def _angle(across: Floats) -> float:
    return float(np.arctan2(across[1], across[0]))


def inside_share(transforms: NDArray[np.float64], size: int, shown: tuple[int, int]) -> float:
    """Share of the crops' area that lies inside the frame.

    Args:
        transforms: matrices ``[T, 2, 3]`` of ``crop_transforms``.
        size: side of the crop, pixels.
        shown: width and height of the frames, pixels.
    """
    axis = (np.arange(INSIDE_POINTS) + 0.5) * size / INSIDE_POINTS - 0.5
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    source = np.linalg.solve(transforms[:, None, :, :2], (grid - transforms[:, None, :, 2])[..., None])[
        ..., 0
    ]
    return float(((source > -0.5) & (source < np.array(shown) - 0.5)).all(-1).mean())


def shows_mouth(frame: Frame, points: Floats) -> bool:
    """Whether the middle of the mouth lies inside the frame; Face Mesh guesses it where it does not."""
    mouth = points[list(layout_of(points).lips), :2].mean(0)
    return bool(((mouth > -0.5) & (mouth < np.array(frame.shape[1::-1]) - 0.5)).all())


def placed(
    transform: NDArray[np.float64], ratio: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray:
    """The transform ``[2, 3]`` for an image whose pixel p is pixel ``ratio * (p + 0.5) - 0.5 + offset``."""
    shift = transform[:, 2] + transform[:, :2] @ (0.5 * ratio - 0.5 + offset)
    return np.concatenate([transform[:, :2] * ratio, shift[:, None]], axis=1)


def warp(frame: Frame, transform: NDArray[np.float64], size: int) -> Frame:
    """Crop ``[size, size]`` (or ``[size, size, 3]``) of a frame, whose border is repeated outwards.

    A face much larger than the crop is first reduced by area averaging, which avoids aliasing.
    """
    scale = np.minimum(np.linalg.norm(transform[:, :2], axis=0), 1)  # along x and y of the frame
    if scale.min() < 0.5:
        frame, transform = _reduce(frame, transform, size, scale)
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    crop = cv2.warpAffine(frame, transform, (size, size), flags=flags, borderMode=border)
    return np.asarray(crop, np.uint8)


def _reduce(
    frame: Frame, transform: NDArray[np.float64], size: int, scale: NDArray[np.float64]
) -> tuple[Frame, NDArray[np.float64]]:
    """The part of the frame that the crop shows, reduced by ``scale``, and the remaining transform."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    shown = cv2.transform(corners[None], cv2.invertAffineTransform(transform))[0]
    limit = np.array(frame.shape[1::-1])
    low = np.clip(np.floor(shown.min(0)) - 2, 0, limit - 1).astype(int)
    high = np.clip(np.ceil(shown.max(0)) + 2, low + 1, limit).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    small = np.maximum(np.round((high - low) * scale), 1).astype(int)
    reduced = cv2.resize(part, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.uint8), placed(transform, (high - low) / small, low)
