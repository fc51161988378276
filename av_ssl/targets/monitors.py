"""How far targets of self-distillation are from collapse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from av_ssl.targets.collapse import Bounds


class TargetMonitor(NamedTuple):
    """Scalars (float32 tensors: reading them waits for the device)."""

    std: Tensor
    """Standard deviation over frames of targets of unit length, times sqrt(channels): 1 where they point
    everywhere, 0 where all are one vector."""
    cosine_between_clips: Tensor
    """Mean cosine of two frames of different clips: 1 in a collapse. 0 for a single clip."""
    cosine_of_neighbours: Tensor
    """Mean cosine of consecutive frames: 1 where targets do not change in time."""


@torch.no_grad()
def target_monitor(target: Tensor, padding_mask: Tensor | None = None) -> TargetMonitor:
    """Look at targets ``[B, T, D]``; ``padding_mask`` bool ``[B, T]``, True on padding.

    >>> import torch
    >>> monitor = target_monitor(torch.ones(2, 5, 4))
    >>> [round(value.item(), 3) for value in monitor]
    [0.0, 1.0, 1.0]
    """
    batch, _, channels = target.shape
    real = torch.ones_like(target[..., :1]) if padding_mask is None else (~padding_mask)[..., None].float()
    unit = F.normalize(target.float(), dim=-1) * real
    frames = real.sum()
    mean = unit.sum((0, 1)) / frames
    variance = unit.square().sum((0, 1)) / frames - mean.square()
    std = variance.clamp(min=0).sqrt().mean() * math.sqrt(channels)
    # The mean cosine over all pairs of frames of two clips is the product of the clips' mean vectors.
    clips = unit.sum(1) / real.sum(1).clamp(min=1)
    pairs = clips.sum(0).square().sum() - clips.square().sum()
    neighbours = real[:, 1:] * real[:, :-1]
    alike = (unit[:, 1:] * unit[:, :-1]).sum() / neighbours.sum().clamp(min=1)
    return TargetMonitor(std, pairs / max(1, batch * (batch - 1)), alike)


def monitor_bounds(teachers: Iterable[str], least_std: float, largest_cosine: float) -> dict[str, Bounds]:
    """Where the monitors of teachers must stay, for :class:`~av_ssl.targets.collapse.CollapseGuard`."""
    limits = {
        "std": Bounds("model.min_target_std", low=least_std),
        "cosine_between_clips": Bounds("model.max_target_cosine", high=largest_cosine),
    }
    return {f"{teacher}_target_{name}": limit for teacher in teachers for name, limit in limits.items()}


def bounded(monitors: Mapping[str, TargetMonitor], clips: int) -> dict[str, Tensor]:
    """The numbers of :func:`monitor_bounds` in a batch; a single clip has no other to be compared with."""
    names = ("std", "cosine_between_clips") if clips > 1 else ("std",)
    return {
        f"{teacher}_target_{name}": getattr(monitor, name)
        for teacher, monitor in monitors.items()
        for name in names
    }
