"""Smooth displacement of an image from a few points whose displacement is known.

Linear-kernel radial basis functions with an affine part: exact at the points but for a slight smoothing, and
without the ripples of thin plates, which matters where lips move by twice their thickness.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]

SMOOTHING = 0.3  # pixels: how much the displacement may differ at points that contradict each other


def fit(points: Floats, displacements: Floats) -> Floats:
    """Coefficients `[..., N + 3, 2]` of a field that moves `points` by `displacements` (`[..., N, 2]`)."""
    count = points.shape[-2]
    system = np.zeros((*points.shape[:-2], count + 3, count + 3))
    system[..., :count, :count] = _distances(points, points)
    diagonal = np.arange(count)
    system[..., diagonal, diagonal] = -SMOOTHING
    system[..., :count, count] = system[..., count, :count] = 1
    system[..., :count, count + 1 :] = points
    system[..., count + 1 :, :count] = np.swapaxes(points, -1, -2)
    wanted = np.zeros((*points.shape[:-2], count + 3, 2))
    wanted[..., :count, :] = displacements
    return np.linalg.solve(system, wanted).astype(np.float32)


def evaluate(coefficients: Floats, points: Floats, places: Floats) -> Floats:
    """Displacement `[Q, 2]` at `places` `[Q, 2]` of a field through `points` `[N, 2]`."""
    places = places.astype(np.float32)
    count = len(points)
    radial = np.asarray(_distances(places, points.astype(np.float32)) @ coefficients[:count], np.float32)
    radial += coefficients[count] + places @ coefficients[count + 1 :]
    return radial


def _distances(a: Floats, b: Floats) -> Floats:
    """Distances `[..., M, N]` between `a` `[..., M, 2]` and `b` `[..., N, 2]`."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab as one matrix product.
    left = np.concatenate([a, np.square(a).sum(-1, keepdims=True), np.ones_like(a[..., :1])], axis=-1)
    right = np.concatenate([-2 * b, np.ones_like(b[..., :1]), np.square(b).sum(-1, keepdims=True)], axis=-1)
    squared: Floats = left @ np.swapaxes(right, -1, -2)
    np.maximum(squared, 0, out=squared)
    np.sqrt(squared, out=squared)
    return squared


def grid(axis: Floats) -> Floats:
    """Places (x, y) of a square grid, `[n, n, 2]`."""
    return np.stack(np.meshgrid(axis, axis), -1).astype(np.float32)


def finely(displacement: Floats, nodes: Floats, size: int) -> Floats:
    """A displacement of every pixel `[size, size, 2]` from one of a grid of `nodes`."""
    coarse = displacement.reshape(nodes.shape)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def look_up(image: Image, places: Floats, displacement: Floats) -> Image:
    """The colours of an image at displaced places `[S, S, 2]`."""
    moved = places + displacement
    found = cv2.remap(image, moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)
