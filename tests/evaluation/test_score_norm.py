"""Cosine scores and their normalisation."""

import numpy as np
import pytest

from av_ssl.classification.verification import adaptive_s_norm, cosine_scores


def test_cosine():
    embeddings = np.array([[2, 0], [0, 3], [1, 1], [0, 0]], np.float32)
    scores = cosine_scores(embeddings, np.array([0, 0, 2, 3]), np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(scores, [1, 0, 0.5**0.5, 0], atol=1e-6)


def test_s_norm_by_hand():
    rng = np.random.default_rng(0)
    embeddings, cohort = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype("f4")
    first, second = np.array([0, 1, 1]), np.array([3, 4, 3])
    scores = cosine_scores(embeddings, first, second)
    normed = adaptive_s_norm(scores, embeddings, first, second, cohort, top=6)

    def against_cohort(row):
        cosines = cohort @ embeddings[row] / np.linalg.norm(cohort, axis=1) / np.linalg.norm(embeddings[row])
        nearest = np.sort(cosines)[-6:]
        return nearest.mean(), nearest.std()

    for k, score in enumerate(scores):
        sides = [against_cohort(row) for row in (first[k], second[k])]
        expected = sum((score - mean) / deviation for mean, deviation in sides) / 2
        assert normed[k] == pytest.approx(expected, abs=1e-4)


def test_a_cohort_smaller_than_top_and_too_small():
    embeddings = np.eye(3, dtype=np.float32)
    sides = np.array([0]), np.array([1])
    assert np.isfinite(adaptive_s_norm(np.array([0.5]), embeddings, *sides, embeddings, top=300)).all()
    with pytest.raises(ValueError, match="has 1 embeddings"):
        adaptive_s_norm(np.array([0.5]), embeddings, *sides, embeddings[:1])
