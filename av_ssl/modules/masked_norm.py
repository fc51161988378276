"""Batch norm of padded batches: statistics of real frames alone, so that padding changes nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch norm over maps ``[B, C, F, T]`` of which some frames t are padding.

    Padding is zero in what comes out, as convolutions pad, so a clip gives the same in every batch.
    """

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # type: ignore[override]
        """``x [B, C, F, T]``, zero on padding; ``keep`` float ``[B, 1, 1, T]``, 1 on real frames."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.training:
            normed = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return normed * keep.to(x.dtype)
        wide, keep = x.float(), keep.float()  # half precision cannot count
        count = keep.sum() * x.size(2)
        mean = wide.sum((0, 2, 3)) / count
        centred = (wide - mean[:, None, None]) * keep
        variance = centred.square().sum((0, 2, 3)) / count
        self.follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((centred * scale[:, None, None] + self.bias[:, None, None]) * keep).to(x.dtype)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as batch norm does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class RowBatchNorm(nn.BatchNorm1d):
    """Batch norm of ``[B, C]`` that takes its running statistics where a batch has a single row, which has no
    variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)
