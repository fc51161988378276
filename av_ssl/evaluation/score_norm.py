"""Scores of embedding pairs, and adaptive score normalisation against a cohort of other speakers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Floats = NDArray[np.float64]

SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-6


def unit_length(embeddings: Embeddings) -> Embeddings:
    """Rows `[N, D]` divided by their norm."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(norms, SMALLEST_NORM)


def cosine_scores(embeddings: Embeddings, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Cosine of the rows `first` `[P]` and `second` `[P]` of `embeddings` `[N, D]`."""
    unit = unit_length(embeddings)
    return np.einsum("pd,pd->p", unit[first], unit[second], dtype=np.float64)


def adaptive_s_norm(
    scores: Floats,
    embeddings: Embeddings,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    cohort: Embeddings,
    top: int = 300,
) -> Floats:
    """Adaptive s-norm (Matějka et al., 2017): each score as both sides see it against their nearest cohort.

    `s' = ((s - m_1) / d_1 + (s - m_2) / d_2) / 2`, m and d being mean and deviation of the `top` highest
    cosines between a side and the cohort.

    Args:
        scores: `[P]` of the trials.
        embeddings: `[N, D]` of the utterances.
        first, second: `[P]`, rows of the two sides.
        cohort: `[M, D]`, best one embedding a speaker, of speakers that are in no trial.
        top: 300 is our choice; values from 100 to 400 are in use.

    Raises ValueError when the cohort has fewer than two embeddings.
    """
    if len(cohort) < 2:
        raise ValueError(f"the cohort has {len(cohort)} embeddings; score normalisation needs at least 2")
    used, positions = np.unique(np.concatenate([first, second]), return_inverse=True)
    nearest = min(top, len(cohort))
    unit_cohort = unit_length(cohort)
    statistics = np.empty((len(used), 2))
    for start in range(0, len(used), 1024):  # so that a large cohort fits into memory
        rows = slice(start, start + 1024)
        cosines = unit_length(embeddings[used[rows]]) @ unit_cohort.T
        highest = np.partition(cosines, len(cohort) - nearest, axis=1)[:, -nearest:].astype(np.float64)
        statistics[rows] = np.stack([highest.mean(1), highest.std(1).clip(SMALLEST_DEVIATION)], axis=1)
    means, deviations = statistics[positions].T.reshape(2, 2, len(scores))
    return np.asarray(((scores - means) / deviations).mean(0), np.float64)
