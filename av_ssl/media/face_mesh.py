"""Faces and their 468 surface points in a frame, with OpenCV alone.

``cv2.dnn`` runs the two graphs of ``models/``: BlazeFace (Bazarevsky et al., 2019) finds faces, Face Mesh
(Kartynnik et al., 2019) finds the points inside one square region. Both were trained on RGB. Works with
OpenCV 4.11 to 5.x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MODELS = Path(__file__).parent / "models"

DETECTOR_SIDE = 128  # pixels, input of BlazeFace short range
MESH_SIDE = 192  # pixels, input of Face Mesh
MESH_POINTS = 468
REGION_MARGIN = 1.5  # side of a mesh region over the side of the face box, as the mesh was trained
OVERLAP = 0.3  # detections that overlap by more than this (intersection over union) are one face

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263  # mesh points; right and left are the person's

Floats = NDArray[np.float32]
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Region:
    """A square of the frame that holds one face; ``angle`` is its rotation in radians, clockwise."""

    centre: tuple[float, float]  # x, y in pixels
    side: float  # pixels
    angle: float = 0.0

    def to_mesh(self) -> Floats:
        """Affine matrix ``[2, 3]`` from frame coordinates to the mesh's input square."""
        scale = MESH_SIDE / self.side
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        shift = MESH_SIDE / 2 - rotation @ np.array(self.centre)
        return np.hstack([rotation, shift[:, None]]).astype(np.float32)

    @classmethod
    def around(cls, points: Floats) -> Region:
        """Region for the next frame of a face whose mesh points ``[468, 2 or 3]`` are known."""
        angle = _eye_angle(points[RIGHT_EYE_OUTER], points[LEFT_EYE_OUTER])
        cos, sin = np.cos(angle), np.sin(angle)
        upright = np.array([[cos, sin], [-sin, cos]])
        turned = points[:, :2] @ upright.T
        low, high = turned.min(0), turned.max(0)
        x, y = (low + high) / 2 @ upright
        return cls((float(x), float(y)), float(np.max(high - low)) * REGION_MARGIN, angle)


@dataclass(frozen=True)
class Detection:
    """One face found by the detector; coordinates in pixels, x before y."""

    score: float  # 0 to 1
    box: Floats  # [2, 2]: top left, bottom right
    key_points: Floats  # [6, 2]: right eye, left eye, nose tip, mouth centre, right ear, left ear

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float(np.prod(np.maximum(self.box[1] - self.box[0], 0)))

    @property
    def region(self) -> Region:
        """Region for the mesh."""
        x, y = self.box.mean(0)
        side = float(np.max(self.box[1] - self.box[0])) * REGION_MARGIN
        return Region((float(x), float(y)), side, _eye_angle(self.key_points[0], self.key_points[1]))


MIN_SCORE = 0.5
"""Of a face, 0 to 1: below, there is none."""


class FaceMesh:
    """Face detector and face mesh; keeps no state between frames."""

    def __init__(self) -> None:
        self._detector = _load("face_detection_short_range.tflite")
        self._mesh = _load("face_landmark.tflite")
        self._detector_outputs = self._detector.getUnconnectedOutLayersNames()
        self._mesh_outputs = self._mesh.getUnconnectedOutLayersNames()

    def detect(self, rgb: Frame) -> list[Detection]:
        """Faces in a frame ``[H, W, 3]`` (uint8, RGB), best score first."""
        height, width = rgb.shape[:2]
        longest = max(height, width)
        scale = DETECTOR_SIDE / longest
        margin = np.array([(longest - width) / 2, (longest - height) / 2], np.float32)
        letterbox = np.array([[scale, 0, margin[0] * scale], [0, scale, margin[1] * scale]], np.float32)
        square = cv2.warpAffine(rgb, letterbox, (DETECTOR_SIDE, DETECTOR_SIDE), flags=cv2.INTER_LINEAR)
        self._detector.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        outputs = {out.size: out for out in self._detector.forward(self._detector_outputs)}

        anchors = _anchors()
        scores = _sigmoid(outputs[len(anchors)].reshape(-1))
        keep = scores > MIN_SCORE
        if not keep.any():
            return []
        values = outputs[16 * len(anchors)].reshape(-1, 8, 2)[keep] / DETECTOR_SIDE
        centre, extent = values[:, 0] + anchors[keep], values[:, 1]
        corners = np.stack([centre - extent / 2, centre + extent / 2], axis=1)
        key_points = values[:, 2:] + anchors[keep][:, None]
        points = np.concatenate([corners, key_points], axis=1)
        return _merge_overlapping(scores[keep], points * longest - margin)

    def landmarks(self, rgb: Frame, region: Region) -> tuple[float, Floats]:
        """Score (0 to 1) that a face is in ``region``, and its points ``[468, 3]`` in pixels of the frame.

        The third coordinate is depth in pixels, smaller nearer the camera. At a low score the points are
        meaningless.
        """
        to_mesh = region.to_mesh()
        square = cv2.warpAffine(rgb, to_mesh, (MESH_SIDE, MESH_SIDE), flags=cv2.INTER_LINEAR)
        self._mesh.setInput(cv2.dnn.blobFromImage(square, 1 / 255.0))
        outputs = {out.size: out for out in self._mesh.forward(self._mesh_outputs)}
        score = float(_sigmoid(outputs[1].reshape(-1))[0])
        points = outputs[3 * MESH_POINTS].reshape(MESH_POINTS, 3)
        back = cv2.invertAffineTransform(to_mesh)
        flat = points[:, :2] @ back[:, :2].T + back[:, 2]
        depth = points[:, 2:] * (region.side / MESH_SIDE)
        return score, np.concatenate([flat, depth], axis=1).astype(np.float32)

    def find(self, rgb: Frame) -> Floats | None:
        """Points ``[468, 3]`` of the largest face of a frame ``[H, W, 3]`` (uint8, RGB); None without one."""
        faces = self.detect(rgb)
        if not faces:
            return None
        score, points = self.landmarks(rgb, max(faces, key=lambda face: face.area).region)
        return points if score >= MIN_SCORE else None


def _load(name: str) -> cv2.dnn.Net:
    # OpenCV 5's new engine returns only one of the two outputs of these graphs; OpenCV 4 has a single engine.
    # The model is given as a path, since OpenCV 5.0 ignores the engine for a buffer.
    classic = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
    options: dict[str, Any] = {} if classic is None else {"engine": classic}
    return cv2.dnn.readNetFromTFLite(str(MODELS / name), **options)


def _sigmoid(x: NDArray[Any]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))), np.float32)


def _eye_angle(right: Floats, left: Floats) -> float:
    return float(np.arctan2(left[1] - right[1], left[0] - right[0]))


@lru_cache(maxsize=1)
def _anchors() -> Floats:
    """Centres ``[896, 2]``, 0 to 1, of BlazeFace's anchors: 2 a cell of 16x16 cells, 6 a cell of 8x8."""
    layers = []
    for cells, repeats in ((16, 2), (8, 6)):
        axis = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(layers)


def _merge_overlapping(scores: Floats, points: Floats) -> list[Detection]:
    """BlazeFace's non-maximum suppression: overlapping candidates are averaged by score instead of dropped.

    Args:
        scores: ``[N]``.
        points: ``[N, 8, 2]``, two corners of the box, then the six key points.
    """
    faces = []
    rest = np.argsort(-scores)
    while len(rest):
        same = _overlap(points[rest[0], :2], points[rest, :2]) > OVERLAP
        same[0] = True
        group = rest[same]
        merged = np.average(points[group], axis=0, weights=scores[group]).astype(np.float32)
        faces.append(Detection(float(scores[rest[0]]), merged[:2], merged[2:]))
        rest = rest[~same]
    return faces


def _overlap(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of ``box`` ``[2, 2]`` with each of ``boxes`` ``[N, 2, 2]``."""
    size = np.minimum(box[1], boxes[:, 1]) - np.maximum(box[0], boxes[:, 0])
    common = np.clip(size, 0, None).prod(-1)
    union = (box[1] - box[0]).prod() + (boxes[:, 1] - boxes[:, 0]).prod(-1) - common
    return common / np.maximum(union, 1e-9)
