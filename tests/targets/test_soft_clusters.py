"""Soft clusters against the formula."""

from __future__ import annotations

import numpy as np
import torch

from av_ssl.targets.clusters import SoftClusters

RNG = np.random.default_rng(0)
CENTROIDS = (RNG.standard_normal((50, 32)) * 5).astype(np.float32)
VECTORS = torch.from_numpy((RNG.standard_normal((20, 32)) * 5).astype(np.float32))
INERTIA = 300.0


def test_posteriors_are_the_stated_formula():
    """Without the |y|^2 that is left out."""
    distances = ((VECTORS.numpy().astype(np.float64)[:, None] - CENTROIDS) ** 2).sum(-1)
    expected = np.exp(-(distances - distances.min(1, keepdims=True)) / (INERTIA * 0.1))
    expected /= expected.sum(1, keepdims=True)
    q = SoftClusters(CENTROIDS, INERTIA)(VECTORS)
    np.testing.assert_allclose(q, expected, atol=1e-5)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-6)


def test_largest_at_the_centroid_itself():
    q = SoftClusters(CENTROIDS, INERTIA)(torch.from_numpy(CENTROIDS))
    assert q.argmax(1).tolist() == list(range(50))


def test_half_precision_vectors_are_compared_in_float32():
    clusters = SoftClusters(CENTROIDS, INERTIA)
    half = VECTORS.half()
    assert clusters(half).dtype == torch.float32
    assert torch.equal(clusters(half), clusters(half.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clusters(half), clusters(half.float()))


def test_clusters_without_spread():
    q = SoftClusters(CENTROIDS, 0.0)(torch.from_numpy(CENTROIDS))
    assert torch.isfinite(q).all()
