"""What is done to a teacher's embeddings before a student matches them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

TARGET_NORMS = ("standardize", "l2", "layernorm", "none")
SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-4


def normalized(embedding: Tensor, norm: str, behind: nn.BatchNorm1d) -> Tensor:
    """The embedding, float32 ``[..., D]``, normalised.

    Args:
        embedding: ``[..., D]``, the output of ``behind``.
        norm: ``standardize`` (mean 0 and variance 1 of each channel), ``l2`` (unit length), ``layernorm``
            (mean 0 and variance 1 of each vector) or ``none``.
        behind: a batch norm in eval mode.  Its output has mean ``bias`` and deviation ``|weight|`` over the
            clips that it was trained on, so that no further pass over them is needed.

    Raises:
        ValueError: the norm is unknown.
    """
    x = embedding.float()
    if norm == "none":
        return x
    if norm == "l2":
        return F.normalize(x, dim=-1, eps=SMALLEST_NORM)
    if norm == "layernorm":
        return F.layer_norm(x, x.shape[-1:])
    if norm == "standardize":
        return (x - behind.bias.float()) / behind.weight.float().abs().clamp(min=SMALLEST_DEVIATION)
    raise ValueError(f"target_norm is {norm!r}; it must be one of {', '.join(TARGET_NORMS)}")
