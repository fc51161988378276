"""How far a student is from its speech teachers (DistillAV, arXiv 2502.05766): regression and soft clusters.

Per teacher, summed over its frames t that count, with D channels:

    R = 1/sqrt(D) sum_t |p_t - y_t|^2          C = sum_t [logsumexp z_t - sum_c q_tc z_tc]

C is the cross-entropy of the soft clusters q, their KL divergence up to the entropy of q.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fairseq.logging import metrics
from torch import Tensor

from av_ssl.criterions.av2vec import regression_loss

LOGGED = ("regression", "clusters", "accuracy", "entropy")


class TeacherLosses(NamedTuple):
    """Sums over the targets of one teacher: scalars float32."""

    regression: Tensor
    clusters: Tensor


def soft_cross_entropy(logits: Tensor, posteriors: Tensor) -> Tensor:
    """Sum over rows of the cross-entropy of ``posteriors`` ``[N, K]`` and the softmax of ``logits``.

    >>> import torch
    >>> round(soft_cross_entropy(torch.zeros(2, 4), torch.full((2, 4), 0.25)).item(), 4)
    2.7726
    """
    return (logits.logsumexp(dim=1) - (posteriors * logits).sum(dim=1)).sum()


def teacher_losses(output: Mapping[str, Any]) -> list[TeacherLosses]:
    """Both losses of each teacher, from ``predictions`` and ``targets`` of a model."""
    return [
        TeacherLosses(
            regression_loss(prediction.vectors, target.vectors),
            soft_cross_entropy(prediction.logits, target.posteriors),
        )
        for prediction, target in zip(output["predictions"], output["targets"], strict=True)
    ]


def target_counts(output: Mapping[str, Any]) -> list[int]:
    """Targets of each teacher that count."""
    return [len(target.vectors) for target in output["targets"]]


@torch.no_grad()
def teacher_log(output: Mapping[str, Any], losses: Sequence[TeacherLosses]) -> dict[str, Any]:
    """Sums over targets, for :func:`reduce_teacher_metrics`, named by the number of the teacher."""
    log: dict[str, Any] = {}
    for number, (loss, count) in enumerate(zip(losses, target_counts(output), strict=True)):
        prediction, target = output["predictions"][number], output["targets"][number]
        hits = prediction.logits.argmax(dim=1) == target.posteriors.argmax(dim=1)
        log |= {
            f"teacher{number}_targets": count,
            # Per channel, so that it is 1 where the student predicts the mean of normalised targets.
            f"teacher{number}_regression": loss.regression.detach() / target.vectors.size(1) ** 0.5,
            f"teacher{number}_clusters": loss.clusters.detach(),
            f"teacher{number}_accuracy": hits.sum(),
            f"teacher{number}_entropy": torch.special.entr(target.posteriors).sum(),
        }
    return log


def reduce_teacher_metrics(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log, as means over the targets of all workers and micro-batches, for each teacher: squared error a
    channel, soft cross-entropy and entropy of its soft clusters (nats), share of targets whose most probable
    cluster is the student's."""
    number = 0
    while any(f"teacher{number}_targets" in log for log in logging_outputs):
        count = max(1, sum(log.get(f"teacher{number}_targets", 0) for log in logging_outputs))
        for name in LOGGED:
            key = f"teacher{number}_{name}"
            total = sum(log.get(key, 0) for log in logging_outputs)
            metrics.log_scalar(key, torch.as_tensor(total / count).item(), count, round=4)
        number += 1
