"""How far a student's embeddings are from a teacher's.  Which distance the paper of LUPI uses is not in its
abstract."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

DISTANCES = ("mse", "sse", "nmse", "cos", "l1", "smooth_l1", "margin")
SMALLEST_NORM = 1e-6
MARGIN = 0.1


def embedding_distance(student: Tensor, teacher: Tensor, name: str) -> Tensor:
    """Distances float32 ``[...]`` between vectors ``[..., D]``.

    Args:
        student, teacher: the vectors.
        name: ``mse``, ``l1``, ``smooth_l1`` (means over channels), ``sse`` (the squared distance itself),
            ``cos`` (1 - cosine), ``nmse`` (squared distance of unit vectors, twice ``cos``) or ``margin``
            (``cos`` less 0.1, not below 0).

    Raises:
        ValueError: the name is unknown.

    >>> import torch
    >>> u, v = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 5.0])
    >>> [round(embedding_distance(u, v, name).item(), 4) for name in DISTANCES]
    [5.0, 10.0, 0.4, 0.2, 2.0, 1.5, 0.1]
    """
    u, v = student.float(), teacher.float()
    if name == "mse":
        return (u - v).square().mean(-1)
    if name == "sse":
        return (u - v).square().sum(-1)
    if name == "l1":
        return (u - v).abs().mean(-1)
    if name == "smooth_l1":
        return F.smooth_l1_loss(u, v, reduction="none").mean(-1)
    apart = 1 - cosine(u, v)
    if name == "nmse":
        return 2 * apart
    if name == "cos":
        return apart
    if name == "margin":
        return (apart - MARGIN).clamp(min=0)
    raise ValueError(f"criterion.distance is {name!r}; it must be one of {', '.join(DISTANCES)}")


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Cosines float32 ``[...]`` of vectors ``[..., D]``."""
    return F.cosine_similarity(u.float(), v.float(), dim=-1, eps=SMALLEST_NORM)


def mean_over_segments(values: Tensor, empty: Tensor) -> Tensor:
    """Mean ``[B]`` of ``[B, K]`` over segments that are there: long clips count no more than short ones."""
    return values.masked_fill(empty, 0).sum(1) / (~empty).sum(1).clamp(min=1)
