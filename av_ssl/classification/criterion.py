"""Cross-entropy over the classes of clips, and scores computed from a confusion matrix.

Papers on emotion call plain accuracy "weighted accuracy" (WA), and the mean recall over classes "unweighted
accuracy" (UA).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from av_ssl.compat.keys import option
from av_ssl.methods.criterion import Logs, MeanCriterion, log_means, logged

Counts = NDArray[np.int64]

# -- scores --------------------------------------------------------------------------------------------------


class ClassScores(NamedTuple):
    """Shares from 0 to 1; NaN if no clip was counted."""

    accuracy: float
    """Share of clips that were recognised (WA)."""
    recall: float
    """Unweighted average recall (UAR, UA): mean over the classes that occur."""
    macro_f1: float
    """Mean F1 over the classes that occur or are predicted."""
    weighted_f1: float
    """Mean F1, weighted by how often a class occurs."""


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> Counts:
    """Count predictions: ``[C, C]``, rows by true class; clips of unknown class (-1) are left out."""
    true, found = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if true.shape != found.shape or true.ndim != 1:
        raise ValueError(f"{found.shape} predictions for {true.shape} clips; give one for each")
    if len(true) and not (true.min() >= -1 and max(true.max(), found.max()) < classes and found.min() >= 0):
        raise ValueError(f"ids must be from 0 to {classes - 1} (truth: -1 where it is unknown)")
    known = true >= 0
    return np.bincount(true[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)


def class_scores(confusion: ArrayLike) -> ClassScores:
    """Compute the scores of a confusion matrix ``[C, C]`` (rows: truth).

    >>> [round(score, 5) for score in class_scores([[5, 1, 0], [0, 2, 0], [1, 0, 1]])]
    [0.8, 0.77778, 0.76667, 0.79333]
    """
    counts = np.asarray(confusion, np.float64)
    correct, true, found = np.diag(counts), counts.sum(1), counts.sum(0)
    if not true.sum():
        return ClassScores(*[float("nan")] * 4)
    recalls = correct[true > 0] / true[true > 0]
    seen = true + found > 0
    f1 = 2 * correct[seen] / (true + found)[seen]
    weights = true[seen] / true.sum()
    return ClassScores(
        float(correct.sum() / true.sum()), float(recalls.mean()), float(f1.mean()), float(f1 @ weights)
    )


def confusion_table(confusion: Counts, names: Sequence[str]) -> str:
    """Format as text, one row for each true class."""
    rows = [["truth \\ found", *names, "recall"]]
    for number, (name, row) in enumerate(zip(names, confusion, strict=True)):
        recall = f"{100 * row[number] / row.sum():.1f} %" if row.sum() else "-"
        rows.append([name, *map(str, row), recall])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines)


def score_line(scores: ClassScores, clips: int) -> str:
    """Format the scores as text, in percent."""
    return (
        f"{clips} clips: accuracy {100 * scores.accuracy:.2f} %, "
        f"unweighted average recall {100 * scores.recall:.2f} %, "
        f"macro-F1 {100 * scores.macro_f1:.2f} %, weighted F1 {100 * scores.weighted_f1:.2f} %"
    )


# -- loss and logs, shared with LUPI's criterion -------------------------------------------------------------

MOST_CLASSES = 100  # larger confusion matrices are not logged: corpora have thousands of speakers
CONFUSION = "_confusion"  # fairseq does not print keys that begin with an underscore


def class_loss(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy float32 ``[B]``; 0 where the target is -1."""
    return F.cross_entropy(
        logits.float(), target, ignore_index=-1, reduction="none", label_smoothing=label_smoothing
    )


@torch.no_grad()
def class_log(logits: Tensor, target: Tensor, training: bool) -> dict[str, Any]:
    """Counts that can be summed over workers: clips of known class, those recognised and, in validation, the
    confusion matrix ``[C * C]``.

    Args:
        logits: ``[B, C]``, without margin.
        target: int64 ``[B]``, -1 where the class is unknown.
    """
    known, found, classes = target >= 0, logits.argmax(-1), logits.size(-1)
    log: dict[str, Any] = {"n_known": known.sum(), "n_correct": (known & (found == target)).sum()}
    if not training and classes <= MOST_CLASSES:
        cells = target.clamp(min=0) * classes + found
        counts = torch.zeros(classes * classes, device=target.device)
        log[CONFUSION] = counts.index_add_(0, cells, known.float())
    return log


def reduce_class_log(logging_outputs: Logs) -> None:
    """Log ``accuracy`` and, in validation, ``uar`` (mean recall) and ``macro_f1``, in percent."""
    known = sum(float(log.get("n_known", 0)) for log in logging_outputs)
    if known:
        correct = sum(float(log.get("n_correct", 0)) for log in logging_outputs)
        metrics.log_scalar("accuracy", 100 * correct / known, known, round=2)
    matrices = [log[CONFUSION] for log in logging_outputs if CONFUSION in log]
    if matrices:
        metrics.log_scalar_sum(CONFUSION, sum(matrix.cpu() for matrix in matrices))
        metrics.log_derived("uar", lambda meters: round(100 * _logged_scores(meters).recall, 2))
        metrics.log_derived("macro_f1", lambda meters: round(100 * _logged_scores(meters).macro_f1, 2))


def _logged_scores(meters: Any) -> ClassScores:
    counts = meters[CONFUSION].sum
    side = round(counts.numel() ** 0.5)
    return class_scores(counts.view(side, side).numpy())


# -- criterion -----------------------------------------------------------------------------------------------


@dataclass
class AVClassificationCriterionConfig(FairseqDataclass):
    """Cross-entropy; margins belong to the model."""

    label_smoothing: float = option(0.0, "share of a label given to all classes")


@register_criterion("av_classification", dataclass=AVClassificationCriterionConfig)
class AVClassificationCriterion(MeanCriterion):
    """Mean cross-entropy (nats) over clips; those of unknown class add nothing."""

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        target = sample["target"]
        output = model(target=target, **sample["net_input"])
        loss = class_loss(output["margin_logits"], target, self.cfg.label_smoothing).sum()
        log = logged(sample, len(target), loss=loss)
        return loss, len(target), log | class_log(output["logits"], target, model.training)

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        log_means(logging_outputs, ["loss"])
        reduce_class_log(logging_outputs)
