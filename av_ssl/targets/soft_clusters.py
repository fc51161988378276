"""Soft cluster targets: how near a teacher's vector is to each centroid (DistillAV, arXiv 2502.05766)."""

from __future__ import annotations

import torch
from torch import Tensor

from av_ssl.targets.codebook import Centroids

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
