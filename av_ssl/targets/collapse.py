"""Ends a training whose representation has collapsed, for all workers at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, distributed

logger = logging.getLogger(__name__)

LOOK_EVERY = 100
"""Updates from one look at the watched values to the next."""


class Bounds(NamedTuple):
    """Where a healthy value lies, and the configuration key that says so."""

    key: str
    low: float = -math.inf
    high: float = math.inf


class CollapseGuard:
    """Watches numbers such as the deviation of targets over many updates and over all workers.

    A step only adds them up on their device.  Every ``LOOK_EVERY`` updates their means over these updates and
    over all workers are read, which is the one time that the device is waited for.  All workers read the same
    and so stop together; one that stopped alone would leave the others waiting.

    Args:
        bounds: for each number by name.
        start: updates of which nothing is looked at; models start near a collapse.
        patience: updates, a multiple of ``LOOK_EVERY``, over which a number must be out of bounds to stop.
        advice: what to try, the end of the message.
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
        """Add the numbers of a micro-batch up, scalars; one that it does not have may be missing."""
        one = torch.ones_like(next(iter(values.values())), dtype=torch.float32)
        rows = torch.stack(
            [
                torch.stack([values[name].detach().float(), one]) if name in values else one.new_zeros(2)
                for name in self.bounds
            ]
        )
        self.totals = rows if self.totals is None else self.totals + rows

    def look(self, updates: int) -> None:
        """Judge the numbers recorded so far, if it is time; all workers must call it with the same number.

        Args:
            updates: finished ones; calls that bring no new update do nothing.

        Raises:
            FloatingPointError: a number's mean was out of bounds for as long as ``patience`` says.
        """
        if updates <= self.updates:
            return
        self.updates = updates
        if updates % LOOK_EVERY or self.totals is None:
            return
        totals, self.totals = self.totals, None
        if updates > self.start:
            self.judge(means_over_workers(totals), updates)

    def judge(self, means: list[float], updates: int) -> None:
        for (name, bounds), mean in zip(self.bounds.items(), means, strict=True):
            outside = mean < bounds.low or mean > bounds.high  # nan is neither: nobody had this number
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
    """From sums and counts ``[N, 2]`` of each worker to the means over all of them; nan for a count of 0."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(totals)
    means: list[float] = (totals[:, 0] / totals[:, 1]).tolist()
    return means
