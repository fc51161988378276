"""K-means on what a teacher makes of some clips, and how far its vectors are from the centroids."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.files import write_atomically
from av_ssl.targets.codebook import Centroids, Codebook
from av_ssl.targets.kmeans import FitJob, fit_and_write
from av_ssl.targets.teacher_folder import CLUSTERS

BLOCK = 10_000
"""Frames whose distances are computed at a time."""


def fit_teacher_clusters(job: FitJob) -> float:
    """Fit, write centroids and, beside them, their description with the inertia.

    Returns the inertia, the mean squared distance to the nearest centroid.
    """
    frames, centroids = fit_and_write(job)
    inertia = mean_distance(centroids, frames)
    description = {
        "clusters": job.clusters,
        "seed": job.seed,
        "inertia": inertia,
        "fitted_to_targets": len(frames),
    }
    path = job.centroids.with_name(CLUSTERS)
    write_atomically(path, json.dumps(description, indent=1).encode() + b"\n")
    return inertia


def mean_distance(centroids: Centroids, frames: NDArray[np.float32]) -> float:
    """Mean squared distance of frames `[N, D]` to the nearest of the centroids `[K, D]`."""
    codebook = Codebook(centroids)
    total = sum(codebook.nearest(frames[row : row + BLOCK])[1] for row in range(0, len(frames), BLOCK))
    return total / max(1, len(frames))
