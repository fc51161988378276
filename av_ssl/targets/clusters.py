"""K-means on features, nearest centroids, and soft clusters.

Centroids are plain arrays, so that labels need neither scikit-learn nor a pickle.  K-means is scikit-learn's
MiniBatchKMeans, as in AV-HuBERT and HuBERT (Shi et al., 2022; Hsu et al., 2021); ``benchmarks/clustering.py``
measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.errors import DataError, optional_package
from av_ssl.io import atomic_file, mapped_array, write_json
from av_ssl.targets.feature_shards import FeatureShard

Centroids = NDArray[np.float32]

# -- nearest centroids ---------------------------------------------------------------------------------------

BLOCK = 10_000
"""Frames whose distances are computed at a time."""


def read_centroids(path: Path) -> Centroids:
    """Centroids ``[K, D]``; raise DataError if the file does not hold an array."""
    try:
        return np.array(mapped_array(path), np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error}); delete it to fit again") from error


class Codebook:
    """Finds the nearest of the centroids ``[K, D]``."""

    def __init__(self, centroids: Centroids, device: str | torch.device = "cpu") -> None:
        points = torch.from_numpy(np.ascontiguousarray(centroids, np.float32)).to(device)
        self.device = points.device
        self.transposed = points.T.contiguous()
        self.norms = points.square().sum(dim=1)

    def nearest(self, frames: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
        """Labels ``[n]`` of frames ``[n, D]``, and the sum of their squared distances.

        |x - c|^2 = |x|^2 - 2 x c + |c|^2, of which the first term does not change the choice.
        """
        x = torch.from_numpy(np.array(frames, np.float32)).to(self.device)
        if not len(x):
            return np.zeros(0, np.int64), 0.0
        scores: Tensor = torch.addmm(self.norms, x, self.transposed, alpha=-2)
        least, labels = scores.min(dim=1)
        distances = (least + x.square().sum(dim=1)).clamp(min=0)
        return labels.cpu().numpy(), float(distances.double().sum())

    def inertia(self, frames: NDArray[Any]) -> float:
        """Mean squared distance of frames ``[N, D]`` to their nearest centroid."""
        total = sum(self.nearest(frames[row : row + BLOCK])[1] for row in range(0, len(frames), BLOCK))
        return total / max(1, len(frames))


# -- k-means -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FitJob:
    """K-means to be fitted to a random share of the clips of a split, with all their frames.

    ``centroids`` is the ``.npy`` file to write, ``description`` a JSON file with K, seed, inertia and number
    of frames, or None.
    """

    shards: tuple[FeatureShard, ...]
    centroids: Path
    clusters: int
    share: float
    seed: int
    description: Path | None = None


def fit_job(job: FitJob) -> None:
    frames = draw_frames(job.shards, job.share, job.seed)
    centroids = fit_kmeans(frames, job.clusters, job.seed)
    with atomic_file(job.centroids) as file:
        np.save(file, centroids)
    if job.description is not None:
        description = {
            "clusters": job.clusters,
            "seed": job.seed,
            "inertia": Codebook(centroids).inertia(frames),
            "fitted_to_targets": len(frames),
        }
        write_json(job.description, description)


def draw_frames(shards: tuple[FeatureShard, ...], share: float, seed: int) -> NDArray[np.float32]:
    """All frames ``[N, D]`` of a random share of the clips that could be read; at least one clip.

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
    """Centroids ``[K, D]`` of frames ``[N, D]``, with the settings of AV-HuBERT's recipe.

    The best of ``starts`` initialisations by k-means++ is kept. DataError if there are fewer frames than
    clusters.
    """
    if len(frames) < clusters:
        raise DataError(
            f"{len(frames)} frames cannot make {clusters} clusters; lower --clusters or raise --fit-share "
            "(of a teacher: --fit-targets)"
        )
    model = import_sklearn().cluster.MiniBatchKMeans(
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


def import_sklearn() -> Any:
    """The package, which training does not need."""
    return optional_package("sklearn.cluster", "clusters")


# -- soft clusters -------------------------------------------------------------------------------------------

SMALLEST_SCALE = 1e-12


class SoftClusters:
    """Soft cluster targets of DistillAV (arXiv 2502.05766): how near a vector is to each centroid.

    Posteriors softmax_c(-|y - m_c|^2 / (I temperature)) over the centroids m_c ``[K, D]``, where |y|^2 is the
    same for all and left out, and I is the inertia, the mean squared distance of the teacher's vectors to
    their nearest centroid. They are computed in float32: squared distances of some hundreds have no digits
    left in half precision. The temperature is 0.1 in DistillAV's public code.
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
