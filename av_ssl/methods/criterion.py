"""What criterions share: logs as means over frames, the feature penalty, losses of several methods."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, List, Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from av_ssl.compat.keys import option

BITS = math.log(2)
"""Nats in a bit."""

Logs = Sequence[Mapping[str, Any]]
"""Logging outputs of all workers and micro-batches: sums that fairseq may add up."""


class MeanCriterion(FairseqCriterion):
    """A criterion that keeps its configuration and logs sums, from which ``reduce_metrics`` makes means."""

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def logged(sample: Mapping[str, Any], sample_size: int, **sums: Tensor) -> dict[str, Any]:
    """A logging output: what fairseq needs, and sums of a batch."""
    return {
        "ntokens": sample["ntokens"],
        "nsentences": sample["nsentences"],
        "sample_size": sample_size,
        **{key: value.detach() for key, value in sums.items()},
    }


def log_means(
    logs: Logs, names: Iterable[str], count: str = "sample_size", unit: float = 1.0, prefix: str = ""
) -> None:
    """Log the sums of these names, divided by the sum of ``count`` and by ``unit``.

    Args:
        names: those that no logging output has are left out.
        unit: for instance :data:`BITS`, to log nats as bits.
        prefix: of the names in the logging outputs.
    """
    total = max(1, sum(log.get(count, 0) for log in logs))
    for name in names:
        if any(prefix + name in log for log in logs):
            summed = sum(log.get(prefix + name, 0) for log in logs)
            metrics.log_scalar(name, torch.as_tensor(summed / total / unit).item(), total, round=4)


@dataclass
class FeaturePenaltyConfig(FairseqDataclass):
    """The one loss that all fused methods add to their own."""

    loss_weights: Optional[List[float]] = option(
        [10.0], "weights of extra losses: one, of the mean squared fused feature"
    )


def penalty_weight(cfg: Any) -> float:
    """The weight of the mean squared fused feature in ``cfg.loss_weights``; 0 where it is null or empty."""
    weights = list(cfg.loss_weights or [0.0])
    if len(weights) != 1:
        raise ValueError(
            f"criterion.loss_weights has {len(weights)} entries; there is one extra loss, features_pen"
        )
    return float(weights[0])


def regression_loss(
    prediction: Tensor, target: Tensor, beta: float = 0.0, scale: float | None = None
) -> Tensor:
    """Sum over frames of the scaled squared distance, or of the scaled smooth-L1 distance.

    ``scale * sum_t ||p_t - y_t||^2``, as in data2vec (Baevski et al., 2022, arXiv 2202.03555).

    Args:
        prediction, target: float32 ``[S, C]``.
        beta: where smooth-L1 turns from square to line; 0 is the plain square.
        scale: None for ``1 / sqrt(C)``.
    """
    if beta > 0:
        loss = F.smooth_l1_loss(prediction, target, reduction="sum", beta=beta)
    else:
        loss = F.mse_loss(prediction, target, reduction="sum")
    return loss * (1 / math.sqrt(prediction.size(-1)) if scale is None else scale)


def cross_entropy_sums(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Cross-entropies in nats, summed over frames: one for each label set.

    The loss of HuBERT (Hsu et al., 2021, arXiv 2106.07447).

    Args:
        logits: float32 ``[N, V]`` for each label set.
        targets: int64 ``[N]`` for each label set.
    """
    pairs = zip(logits, targets, strict=True)
    return torch.stack([F.cross_entropy(y, t, reduction="sum") for y, t in pairs])


def soft_cross_entropy(logits: Tensor, posteriors: Tensor) -> Tensor:
    """Sum over rows of the cross-entropy of ``posteriors`` ``[N, K]`` and the softmax of ``logits``, in nats.

    It is the Kullback-Leibler divergence plus the entropy of the posteriors, which has no gradient
    (DistillAV, Zhang et al., 2025, arXiv 2502.05766).
    """
    return (logits.logsumexp(dim=1) - (posteriors * logits).sum(dim=1)).sum()
