"""Accuracy while training, and from one confusion matrix the other scores of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.logging import metrics
from torch import Tensor

from av_ssl.evaluation.classification import class_scores

MOST_CLASSES = 100
"""Larger confusion matrices are not logged: speakers are told apart by the thousand."""
CONFUSION = "_confusion"
"""fairseq does not print what begins with an underscore."""


def class_loss(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy float32 ``[B]``, 0 where the target is -1."""
    return F.cross_entropy(
        logits.float(), target, ignore_index=-1, reduction="none", label_smoothing=label_smoothing
    )


@torch.no_grad()
def class_log(logits: Tensor, target: Tensor, training: bool) -> dict[str, Any]:
    """Counts that can be summed over workers: clips of known class, those recognised, and in validation the
    confusion matrix ``[C * C]``.

    Args:
        logits: ``[B, C]``, without margin.
        target: int64 ``[B]``, -1 where the class is unknown.
        training: whether this is no validation.
    """
    known, found, classes = target >= 0, logits.argmax(-1), logits.size(-1)
    log: dict[str, Any] = {"n_known": known.sum(), "n_correct": (known & (found == target)).sum()}
    if not training and classes <= MOST_CLASSES:
        cells = target.clamp(min=0) * classes + found
        counts = torch.zeros(classes * classes, device=target.device)
        log[CONFUSION] = counts.index_add_(0, cells, known.float())
    return log


def reduce_class_log(logging_outputs: Sequence[dict[str, Any]]) -> None:
    """Log ``accuracy`` and, of a validation, ``uar`` (mean recall) and ``macro_f1``, in percent."""
    known = sum(float(log.get("n_known", 0)) for log in logging_outputs)
    if known:
        correct = sum(float(log.get("n_correct", 0)) for log in logging_outputs)
        metrics.log_scalar("accuracy", 100 * correct / known, known, round=2)
    matrices = [log[CONFUSION] for log in logging_outputs if CONFUSION in log]
    if matrices:
        metrics.log_scalar_sum(CONFUSION, sum(matrix.cpu() for matrix in matrices))
        metrics.log_derived("uar", lambda meters: _percent(meters, "recall"))
        metrics.log_derived("macro_f1", lambda meters: _percent(meters, "macro_f1"))


def reduce_clip_means(logging_outputs: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Log means over the clips of all workers and micro-batches, of those ``keys`` that there are."""
    clips = max(1, sum(log.get("sample_size", 0) for log in logging_outputs))
    for key in keys:
        if any(key in log for log in logging_outputs):
            total = sum(log.get(key, 0) for log in logging_outputs)
            metrics.log_scalar(key, torch.as_tensor(total / clips).item(), clips, round=4)


def _percent(meters: Any, score: str) -> float:
    counts = meters[CONFUSION].sum
    side = round(counts.numel() ** 0.5)
    return round(100 * float(getattr(class_scores(counts.view(side, side).numpy()), score)), 2)
