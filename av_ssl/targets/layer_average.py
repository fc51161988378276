"""Targets from a teacher's top layers: normalise each over time, then average (data2vec, AV2vec)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_norm(x: Tensor, padding_mask: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each clip and channel over its real frames, in float32.

    Without padding this is ``F.instance_norm`` over time; statistics of padded frames would change a clip's
    targets with the company it has in the batch.

    Args:
        x: ``[B, T, C]``.
        padding_mask: bool ``[B, T]``, True on padding.
    """
    x = x.float()
    if padding_mask is None:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * (variance + eps).rsqrt()
    weight = (~padding_mask)[..., None].float()
    count = weight.sum(dim=1, keepdim=True)
    mean = (x * weight).sum(dim=1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(dim=1, keepdim=True) / count
    return (x - mean) * (variance + eps).rsqrt()


def averaged_targets(
    layers: Sequence[Tensor],
    padding_mask: Tensor | None,
    normalize_layers: bool = True,
    normalize_sum: bool = False,
) -> Tensor:
    """Mean of the layers, each instance-normalised first: float32 ``[B, T, C]``.

    Args:
        layers: outputs of the top K layers, each ``[B, T, C]``.
        normalize_layers: instance norm of each layer.
        normalize_sum: layer norm (no affine) of the mean.

    >>> import torch
    >>> y = averaged_targets([torch.arange(6.0).view(1, 3, 2)], None)
    >>> bool(y.mean(dim=1).abs().max() < 1e-6)
    True
    """
    total: Tensor | None = None
    for layer in layers:
        layer = instance_norm(layer, padding_mask) if normalize_layers else layer.float()
        total = layer if total is None else total + layer
    if total is None:
        raise ValueError("no layers to average")
    mean = total / len(layers)
    return F.layer_norm(mean, mean.shape[-1:]) if normalize_sum else mean
