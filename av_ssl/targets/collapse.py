"""Collapse of self-distillation: numbers that show it, and a guard that ends the training of all workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

logger = logging.getLogger(__name__)

LOOK_EVERY = 100
"""Updates between checks of the watched numbers."""


class Bounds(NamedTuple):
    """Range of healthy values, and the configuration key that sets it."""

    key: str
    low: float = -math.inf
    high: float = math.inf


class CollapseGuard:
    """Watch numbers such as the standard deviation of targets over many updates and all workers.

    A step only adds them up on their device.  Every ``LOOK_EVERY`` updates their means over these updates and
    all workers are read, which is the only synchronisation with the device.  All workers read the same means
    and so stop together; one that stopped alone would leave the others waiting.

    Args:
        bounds: of each number by name.
        start: updates at the beginning that are not checked; models start near a collapse.
        patience: updates, a multiple of ``LOOK_EVERY``, for which a number must be out of bounds to stop.
        advice: what to try; it ends the error message.
    """

    def __init__(self, bounds: Mapping[str, Bounds], start: int, patience: int, advice: str) -> None:
        self.bounds = dict(bounds)
        self.start = start
        self.looks_needed = patience // LOOK_EVERY
        self.advice = advice
        self.looks_outside = dict.fromkeys(self.bounds, 0)
        self.totals: Tensor | None = None
        self.updates = 0

    def record(self, values: Mapping[str, Tensor]) -> None:
        """Add the numbers (scalars) of a micro-batch; numbers that it does not have may be missing."""
        one = torch.ones_like(next(iter(values.values())), dtype=torch.float32)
        rows = torch.stack(
            [
                torch.stack([values[name].detach().float(), one]) if name in values else one.new_zeros(2)
                for name in self.bounds
            ]
        )
        self.totals = rows if self.totals is None else self.totals + rows

    def look(self, updates: int) -> None:
        """Check the numbers recorded so far, if it is time.

        ``updates`` is the number of finished updates, the same for all workers; calls without a new update do
        nothing, and a lower one begins a new training that starts from a checkpoint. Raises
        FloatingPointError if the mean of a number was out of bounds for ``patience`` updates.
        """
        before, self.updates = self.updates, updates
        if updates <= before:
            return
        if updates % LOOK_EVERY or self.totals is None:
            return
        totals, self.totals = self.totals, None
        if updates > self.start:
            self.judge(means_over_workers(totals), updates)

    def judge(self, means: list[float], updates: int) -> None:
        for (name, bounds), mean in zip(self.bounds.items(), means, strict=True):
            outside = mean < bounds.low or mean > bounds.high  # nan is neither: no batch had this number
            self.looks_outside[name] = self.looks_outside[name] + 1 if outside else 0
            if not outside:
                continue
            limit = bounds.low if mean < bounds.low else bounds.high
            said = f"{name} is {mean:.4f}, beyond {limit} ({bounds.key})"
            if self.looks_outside[name] >= self.looks_needed:
                raise FloatingPointError(
                    f"the representation has collapsed at update {updates}: {said}, in the mean of the last "
                    f"{LOOK_EVERY} updates, as in {self.looks_needed * LOOK_EVERY} in a row. {self.advice}"
                )
            logger.warning("near a collapse at update %d: %s", updates, said)


def means_over_workers(totals: Tensor) -> list[float]:
    """Means over all workers of sums and counts ``[N, 2]``; nan for a count of 0."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(totals)
    means: list[float] = (totals[:, 0] / totals[:, 1]).tolist()
    return means


class TargetMonitor(NamedTuple):
    """Scalars that show a collapse, as float32 tensors on the device."""

    std: Tensor
    """Standard deviation over frames of targets of unit length, times sqrt(channels): 1 for directions at
    random, 0 if all targets are equal."""
    cosine_between_clips: Tensor
    """Mean cosine of frames of different clips: 1 in a collapse; 0 for a single clip."""
    cosine_of_neighbours: Tensor
    """Mean cosine of consecutive frames: 1 if targets do not change in time."""
    rank: Tensor
    """Effective rank: how many directions share the variance over frames, from 1 to the number of channels.
    A collapse of all channels to one shows in this number alone; see :func:`effective_rank`."""


@torch.no_grad()
def target_monitor(target: Tensor, padding_mask: Tensor | None = None) -> TargetMonitor:
    """Measure targets ``[B, T, D]``; ``padding_mask`` bool ``[B, T]`` is True on padding.

    >>> import torch
    >>> monitor = target_monitor(torch.ones(2, 5, 4))
    >>> [round(value.item(), 3) for value in monitor]
    [0.0, 1.0, 1.0, 1.0]
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
    rank = effective_rank(target.float(), real)
    return TargetMonitor(std, pairs / max(1, batch * (batch - 1)), alike, rank)


def effective_rank(x: Tensor, real: Tensor) -> Tensor:
    """Participation ratio ``(sum of eigenvalues)^2 / (sum of squares)`` of the covariance of ``[B, T, D]``.

    ``real`` ``[B, T, 1]`` is 0 on padding. At least 1, also where all frames are equal.
    """
    centred = ((x - (x * real).sum((0, 1)) / real.sum()) * real).flatten(0, 1)
    covariance = centred.T @ centred if len(centred) > x.shape[-1] else centred @ centred.T
    return (covariance.trace().square() / covariance.square().sum().clamp(min=1e-12)).clamp(min=1)


def decorrelation_loss(x: Tensor) -> Tensor:
    """Sum of the squared correlations between different channels of frames ``[S, C]``, divided by C.

    As in Barlow Twins (Zbontar et al., 2021) and VICReg (Bardes et al., 2022), but of correlations within one
    view. It is ``C / rank - 1``, where ``rank`` is the effective rank of the standardised channels.
    """
    x = x.float()
    standard = (x - x.mean(0)) * (x.var(0, correction=0) + 1e-5).rsqrt()
    correlation = standard.T @ standard / len(x)
    return (correlation.square().sum() - correlation.diagonal().square().sum()) / x.shape[1]
