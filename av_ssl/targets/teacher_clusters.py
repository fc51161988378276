"""K-means on what a teacher makes of some clips, and how far its vectors are from the centroids."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.files import write_atomically
from av_ssl.targets.codebook import Centroids, Codebook
from av_ssl.targets.feature_shards import FeatureShard
from av_ssl.targets.kmeans import draw_frames, fit_kmeans
from av_ssl.targets.teacher_folder import CENTROIDS, CLUSTERS

BLOCK = 10_000
"""Frames whose distances are computed at a time."""


@dataclass(frozen=True)
class TeacherFitJob:
    """K-means to be fitted.

    Args:
        shards: of targets.
        folder: for centroids and their description.
        clusters: K.
        share: of the clips, drawn at random, all targets of which are used.
        seed: of the draw and of k-means.
    """

    shards: tuple[FeatureShard, ...]
    folder: Path
    clusters: int
    share: float
    seed: int


def fit_teacher_clusters(job: TeacherFitJob) -> float:
    """Fit, write centroids and inertia; returns the inertia, the mean squared distance to the nearest."""
    frames = draw_frames(job.shards, job.share, job.seed)
    centroids = fit_kmeans(frames, job.clusters, job.seed)
    inertia = mean_distance(centroids, frames)
    content = io.BytesIO()
    np.save(content, centroids)
    write_atomically(job.folder / CENTROIDS, content.getvalue())
    description = {
        "clusters": job.clusters,
        "seed": job.seed,
        "inertia": inertia,
        "fitted_to_targets": len(frames),
    }
    write_atomically(job.folder / CLUSTERS, json.dumps(description, indent=1).encode() + b"\n")
    return inertia


def mean_distance(centroids: Centroids, frames: NDArray[np.float32]) -> float:
    """Mean squared distance of frames `[N, D]` to the nearest of the centroids `[K, D]`."""
    codebook = Codebook(centroids)
    total = sum(codebook.nearest(frames[row : row + BLOCK])[1] for row in range(0, len(frames), BLOCK))
    return total / max(1, len(frames))
