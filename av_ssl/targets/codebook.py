"""Centroids, and which is nearest; plain arrays, so that labels need neither scikit-learn nor a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.errors import DataError

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
