"""Fitting k-means to the features of a share of the clips.

scikit-learn's MiniBatchKMeans is what AV-HuBERT and HuBERT cluster with (Shi et al., 2022; Hsu et al., 2021),
and `benchmarks/clustering.py` measures it.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from av_ssl.errors import DataError
from av_ssl.media.files import write_atomically
from av_ssl.targets.codebook import Centroids
from av_ssl.targets.feature_shards import FeatureShard


@dataclass(frozen=True)
class FitJob:
    """K-means to be fitted.

    Args:
        shards: of the split whose features are clustered.
        centroids: `.npy` file to write, float32 `[K, D]`.
        clusters: K.
        share: of the clips, drawn at random, all frames of which are used.
        seed: of the draw and of k-means.
    """

    shards: tuple[FeatureShard, ...]
    centroids: Path
    clusters: int
    share: float
    seed: int


def fit_job(job: FitJob) -> int:
    """Fit and write the centroids; returns the number of frames that were used."""
    return len(fit_and_write(job)[0])


def fit_and_write(job: FitJob) -> tuple[NDArray[np.float32], Centroids]:
    """The frames that were used `[N, D]`, and the centroids `[K, D]`, which are written."""
    frames = draw_frames(job.shards, job.share, job.seed)
    centroids = fit_kmeans(frames, job.clusters, job.seed)
    content = io.BytesIO()
    np.save(content, centroids)
    write_atomically(job.centroids, content.getvalue())
    return frames, centroids


def draw_frames(shards: tuple[FeatureShard, ...], share: float, seed: int) -> NDArray[np.float32]:
    """All frames `[N, D]` of a random share of the clips that could be read; at least one clip.

    The draw is over the split, so that it does not depend on the number of shards.
    """
    parts = [shard.read() for shard in shards]
    lengths = np.concatenate([part for _, part in parts])
    usable = np.flatnonzero(lengths)
    drawn = np.random.default_rng(seed).permutation(usable)[: math.ceil(share * len(usable))]
    chosen = np.zeros(len(lengths), bool)
    chosen[drawn] = True
    frames = np.empty((lengths[chosen].sum(), parts[0][0].shape[1]), np.float32)
    row = clip = 0
    for features, part in parts:
        picked = features[np.repeat(chosen[clip : clip + len(part)], part)]
        frames[row : row + len(picked)] = picked
        row, clip = row + len(picked), clip + len(part)
    return frames


def fit_kmeans(frames: NDArray[Any], clusters: int, seed: int = 0, starts: int = 20) -> Centroids:
    """Centroids `[K, D]` of frames `[N, D]`, with the settings of AV-HuBERT's recipe.

    Args:
        frames: features.
        clusters: K.
        seed: of the random numbers.
        starts: initialisations by k-means++, of which the best is kept.

    Raises DataError for fewer frames than clusters.
    """
    if len(frames) < clusters:
        raise DataError(
            f"{len(frames)} frames cannot make {clusters} clusters; raise --fit-share (of a teacher: "
            "--fit-targets) or lower --clusters"
        )
    model = MiniBatchKMeans(
        clusters,
        init="k-means++",
        n_init=starts,
        max_iter=100,
        batch_size=10_000,
        tol=0.0,
        max_no_improvement=100,
        reassignment_ratio=0.0,
        random_state=seed,
        compute_labels=False,
    )
    return np.asarray(model.fit(frames).cluster_centers_, np.float32)
