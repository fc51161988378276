"""Centroids, and which is nearest; plain arrays, so that labels need neither scikit-learn nor a pickle.

Fitting k-means to the features of a share of the clips.

scikit-learn's MiniBatchKMeans is what AV-HuBERT and HuBERT cluster with (Shi et al., 2022; Hsu et al., 2021),
and `benchmarks/clustering.py` measures it.

Soft cluster targets: how near a teacher's vector is to each centroid (DistillAV, arXiv 2502.05766).
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.targets.feature_shards import FeatureShard

Centroids = NDArray[np.float32]


def read_centroids(path: Path) -> Centroids:
    """Centroids `[K, D]`; raises DataError when the file is none of an array."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error}); delete it to fit anew") from error


class Codebook:
    """Finds the nearest centroid.

    Args:
        centroids: `[K, D]`.
        device: where the products are computed.
    """

    def __init__(self, centroids: Centroids, device: str | torch.device = "cpu") -> None:
        points = torch.from_numpy(np.ascontiguousarray(centroids, np.float32)).to(device)
        self.device = points.device
        self.transposed = points.T.contiguous()
        self.norms = points.square().sum(dim=1)

    def nearest(self, frames: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
        """Labels `[n]` of frames `[n, D]`, and the sum of their squared distances.

        |x - c|^2 = |x|^2 - 2 x c + |c|^2, of which the first term does not matter for the choice.
        """
        x = torch.from_numpy(np.array(frames, np.float32)).to(self.device)
        if not len(x):
            return np.zeros(0, np.int64), 0.0
        scores: Tensor = torch.addmm(self.norms, x, self.transposed, alpha=-2)
        least, labels = scores.min(dim=1)
        distances = (least + x.square().sum(dim=1)).clamp(min=0)
        return labels.cpu().numpy(), float(distances.double().sum())


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


SMALLEST_SCALE = 1e-12


class SoftClusters:
    """Posteriors softmax_c(-|y - m_c|^2 / (I temperature)) over the centroids m_c.

    |y|^2 is the same for all of them and left out.  Everything is computed in float32, in which the centroids
    stay: squared distances of some hundreds have no digits left in half precision.

    Args:
        centroids: float32 ``[K, D]``.
        inertia: I, the mean squared distance of the teacher's vectors to their nearest centroid.
        temperature: 0.1 in DistillAV's public code.
    """

    def __init__(self, centroids: Centroids, inertia: float, temperature: float = 0.1) -> None:
        points = torch.from_numpy(centroids).float()
        scale = max(inertia * temperature, SMALLEST_SCALE)
        self.slopes = 2 * points.T / scale
        self.offsets = -points.square().sum(1) / scale

    def __call__(self, y: Tensor) -> Tensor:
        """Posteriors float32 ``[N, K]`` of vectors ``[N, D]``."""
        if self.slopes.device != y.device:
            self.slopes, self.offsets = self.slopes.to(y.device), self.offsets.to(y.device)
        with torch.autocast(y.device.type, enabled=False):
            return torch.addmm(self.offsets, y.float(), self.slopes).softmax(dim=1)
