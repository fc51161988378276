"""What a LUPI student can learn from its teacher's embeddings.

A student gains from embeddings that separate the classes, and of which it can predict the part that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from av_ssl.analysis.features import Floats
from av_ssl.analysis.probe import probe
from av_ssl.errors import DataError

PREDICTED = 0.1
"""A channel counts as predicted from this share of its variance on."""


class EmbeddingScores(NamedTuple):
    """Shares are from 0 to 1; errors and cosines are between standardised embeddings."""

    between: float
    """Share of the variance of the teacher's embeddings that lies between the classes."""
    teacher_probe: float
    """Accuracy of a linear probe on them."""
    student_probe: float
    """The same of the student's embeddings."""
    explained: Floats
    """``[D]``, share of the variance of each channel that the student's channel explains: r squared."""
    error: tuple[float, float]
    """Mean squared error, of all channels and of the predicted ones."""
    cosine: tuple[float, float]
    """Mean cosine, likewise."""

    @property
    def predicted(self) -> float:
        """Share of the channels that the student predicts."""
        return float((self.explained >= PREDICTED).mean())


def embedding_scores(teacher: Floats, student: Floats, labels: Sequence[str]) -> EmbeddingScores:
    """Compare embeddings ``[N, D]`` of the same clips, whose classes are ``labels``.

    Raises:
        DataError: the embeddings have different numbers of channels, or there are too few clips to compare.
    """
    if teacher.shape != student.shape:
        raise DataError(
            f"the teacher's embeddings are {teacher.shape}, the student's {student.shape}: name the student "
            "that this teacher taught"
        )
    own, target = standardised(student), standardised(teacher)
    explained = (own * target).mean(0) ** 2
    parts = [np.ones(len(explained), bool), explained >= PREDICTED]
    clips = [str(number) for number in range(len(labels))]
    return EmbeddingScores(
        between_classes(target, labels),
        probe(teacher, labels, clips).accuracy,
        probe(student, labels, clips).accuracy,
        explained,
        (mean_error(own, target, parts[0]), mean_error(own, target, parts[1])),
        (mean_cosine(own, target, parts[0]), mean_cosine(own, target, parts[1])),
    )


def standardised(embeddings: Floats) -> Floats:
    """Mean 0 and variance 1 for each channel of ``[N, D]``; 0 for a channel that never changes."""
    centred = embeddings - embeddings.mean(0, dtype=np.float64)
    deviation = centred.std(0)
    return centred / np.where(deviation > 0, deviation, 1.0)


def between_classes(embeddings: Floats, labels: Sequence[str]) -> float:
    """Share of the variance of ``[N, D]`` that the means of the classes have.

    >>> round(between_classes(np.array([[0.0], [2.0], [4.0], [6.0]]), ["a", "a", "b", "b"]), 6)
    0.8
    """
    _, of_clip, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    centred = embeddings - embeddings.mean(0)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, of_clip, centred)
    return float((sums**2 / counts[:, None]).sum() / np.square(centred).sum())


def mean_error(own: Floats, target: Floats, channels: Floats) -> float:
    return float(np.square(own - target)[:, channels].mean()) if channels.any() else float("nan")


def mean_cosine(own: Floats, target: Floats, channels: Floats) -> float:
    if not channels.any():
        return float("nan")
    own, target = own[:, channels], target[:, channels]
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(target, axis=1)
    return float(((own * target).sum(1) / np.maximum(norms, 1e-9)).mean())


def embedding_report(scores: EmbeddingScores) -> str:
    """A line for each score, in percent."""
    shares = {
        "variance between classes": scores.between,
        "probe of the teacher": scores.teacher_probe,
        "probe of the student": scores.student_probe,
        "channels predicted": scores.predicted,
        "variance predicted": float(scores.explained.mean()),
    }
    lines = [f"{name}: {100 * share:.1f} %" for name, share in shares.items()]
    for name, (every, predicted) in (("squared error", scores.error), ("cosine", scores.cosine)):
        lines.append(f"{name}: {every:.2f}, on predicted channels {predicted:.2f}")
    quartiles = np.quantile(scores.explained, (0, 0.25, 0.5, 0.75, 1))
    found = ", ".join(f"{100 * value:.1f}" for value in quartiles)
    lines.append(f"variance predicted by channel, lowest, quartiles, highest: {found} %")
    return "\n".join(lines)
