"""Scores of class recognition, all of them read off one confusion matrix.

In papers on emotion "weighted accuracy" is plain accuracy, and "unweighted accuracy" the mean recall over
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]


class ClassScores(NamedTuple):
    """Shares from 0 to 1; NaN where nothing was counted."""

    accuracy: float
    """Share of clips recognised ("weighted accuracy", WA)."""
    recall: float
    """Unweighted average recall (UAR, "unweighted accuracy"): mean over the classes that occur."""
    macro_f1: float
    """Mean F1 over the classes that occur or are predicted."""
    weighted_f1: float
    """Mean F1 weighted by how often a class occurs."""


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> Counts:
    """Counts `[C, C]`, rows by true class, columns by prediction; clips of unknown class (-1) are left out.

    Raises ValueError when both differ in number or an id is not below `classes`.
    """
    true, found = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if true.shape != found.shape or true.ndim != 1:
        raise ValueError(f"{found.shape} predictions for {true.shape} clips; give one for each")
    if len(true) and not (true.min() >= -1 and max(true.max(), found.max()) < classes and found.min() >= 0):
        raise ValueError(f"ids must be from 0 to {classes - 1} (truth: -1 where it is unknown)")
    known = true >= 0
    return np.bincount(true[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)


def class_scores(confusion: ArrayLike) -> ClassScores:
    """The scores of a confusion matrix `[C, C]` (rows: truth).

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
    """The matrix as text, a row for each true class."""
    columns = ["truth \\ found", *names, "recall"]
    rows = [columns]
    for name, row in zip(names, confusion, strict=True):
        recall = f"{100 * row[names.index(name)] / row.sum():.1f} %" if row.sum() else "-"
        rows.append([name, *map(str, row), recall])
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines)


def score_line(scores: ClassScores, clips: int) -> str:
    """The scores as text, in percent."""
    return (
        f"{clips} clips: accuracy {100 * scores.accuracy:.2f} %, "
        f"unweighted average recall {100 * scores.recall:.2f} %, "
        f"macro-F1 {100 * scores.macro_f1:.2f} %, weighted F1 {100 * scores.weighted_f1:.2f} %"
    )
