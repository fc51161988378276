"""A shape predictor of the size that AV-HuBERT's preparation uses, for timing without its file.

Only the size of dlib's published file of 68 points matters for speed: 15 cascades of 500 trees of depth 4.
This one is trained on a few frames with our own landmarks; it has no other use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dlib
import numpy as np

from av_ssl.media.alignment import IBUG, MESH

POINTS = 68


def train_predictor(images: Sequence[np.ndarray], points: Sequence[np.ndarray], out: Path) -> None:
    """Write a predictor trained on images ``[H, W, 3]`` and the mesh ``[468, 3]`` of the face in each."""
    faces = [[annotation(mesh)] for mesh in points]
    dlib.train_shape_predictor(list(images), faces, options()).save(str(out))


def annotation(mesh: np.ndarray) -> dlib.full_object_detection:
    """Box and 68 points of a face ``[468, 3]``: those that cropping uses; the others are arbitrary."""
    points = mesh[np.linspace(0, len(mesh) - 1, POINTS).astype(int), :2].copy()
    points[list(IBUG.stable)] = mesh[list(MESH.stable), :2]
    points[list(IBUG.lips)] = mesh[list(MESH.lips), :2]
    corners = [int(value) for value in (*mesh[:, :2].min(0), *mesh[:, :2].max(0))]
    parts = [dlib.point(int(x), int(y)) for x, y in points]
    return dlib.full_object_detection(dlib.rectangle(*corners), parts)


def options() -> dlib.shape_predictor_training_options:
    """The published predictor's size, and the shortest training."""
    chosen = dlib.shape_predictor_training_options()
    chosen.cascade_depth, chosen.num_trees_per_cascade_level, chosen.tree_depth = 15, 500, 4
    chosen.oversampling_amount, chosen.num_test_splits = 2, 1
    chosen.num_threads = 1
    return chosen
