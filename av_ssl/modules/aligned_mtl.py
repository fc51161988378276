"""Aligned-MTL: balances the gradients of several tasks where they meet, in a shared representation.

Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023: the gradients of the K
tasks are replaced by the nearest ones that are orthogonal and all as long as the shortest of their principal
components.  Here it is one node of the autograd graph between the encoder and the heads, so that a single
ordinary backward pass balances what reaches the encoder: any trainer, distributed wrapper, gradient
accumulation and mixed precision will do, and the heads keep the plain gradients of their own tasks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

GRAMS = ("batch_sum", "full")


def aligned_weights(gram: Tensor) -> Tensor:
    """Weights ``[K]`` of the tasks, from the products of their gradients ``[K, K]``.

    With M = U diag(l) U^T, of which the components with l > max(l) K eps stay:
    B = sqrt(min(l)) U diag(l)^(-1/2) U^T, and the weights are the sums of the rows of B.  They do not depend
    on a common scale of the gradients, and may be negative.
    """
    tolerance = len(gram) * torch.finfo(torch.float32).eps
    values, vectors = torch.linalg.eigh(gram.double())
    kept = values > values[-1] * tolerance
    values, vectors = values[kept], vectors[:, kept]
    balance = values[0].sqrt() * (vectors * values.rsqrt()) @ vectors.T
    return balance.sum(dim=1)


class GradientBalancer:
    """Hands the representation to K tasks and weights what they send back.

    The weights are computed in every backward pass, from the gradients of this process and micro-batch:
    nothing is synchronised between workers.  The products of the gradients are brought to the host, which
    waits for the heads' backward pass: once a step.

    Args:
        gram: what the products are of: ``batch_sum``: gradients summed over the clips of the batch, which
            lets those of different clips cancel (as in DistillAV's public code); ``full``: all of them.

    Attributes:
        weights: float64 ``[K]``, on the CPU, of the last backward pass; None before the first.
    """

    def __init__(self, gram: str = "batch_sum") -> None:
        if gram not in GRAMS:
            raise ValueError(f"gram is {gram!r}; it must be one of {', '.join(GRAMS)}")
        self.gram = gram
        self.weights: Tensor | None = None

    def fan_out(self, x: Tensor, tasks: int) -> tuple[Tensor, ...]:
        """``tasks`` copies of ``x`` ``[B, T, C]``; its gradient is the weighted sum of theirs."""
        copies: tuple[Tensor, ...] = _FanOut.apply(x, tasks, self)
        return copies

    def combine(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Weighted sum of the tasks' gradients ``[B, T, C]``; None for a task that took no part."""
        present = [gradient for gradient in gradients if gradient is not None]
        if not present:
            return None
        zero = torch.zeros_like(present[0])
        stacked = torch.stack([zero if gradient is None else gradient for gradient in gradients]).float()
        self.weights = self.weigh(stacked)
        weights = self.weights.to(stacked.device, torch.float32, non_blocking=True)
        return torch.einsum("k,k...->...", weights, stacked).to(present[0].dtype)

    def weigh(self, gradients: Tensor) -> Tensor:
        """Weights of gradients float32 ``[K, B, T, C]``; ones where these are all zero, or not finite.

        An overflow in float16 must reach the optimiser's loss scaler as it is, and fairseq gives workers that
        have run out of data a batch whose loss is zero.
        """
        tasks = gradients.sum(dim=1) if self.gram == "batch_sum" else gradients
        vectors = tasks.flatten(1)
        gram = (vectors @ vectors.T).double().cpu()
        if not torch.isfinite(gram).all() or not gram.any():
            return torch.ones(len(gram), dtype=torch.float64)
        return aligned_weights(gram)


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tasks: int, balancer: GradientBalancer) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.balancer = balancer
        return tuple(x.view_as(x) for _ in range(tasks))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        return ctx.balancer.combine(gradients), None, None
