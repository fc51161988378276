"""Features in two dimensions."""

import importlib.util

import numpy as np
import pytest

from av_ssl.analysis.plots import principal_components, project
from av_ssl.errors import DataError

RNG = np.random.default_rng(0)
GROUPS = np.repeat([0, 1], 40)
X = RNG.normal(size=(80, 10)) + 8 * GROUPS[:, None]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_groups_stay_apart(method):
    points = project(X, method)
    assert points.shape == (80, 2)
    centres = [points[group == GROUPS].mean(axis=0) for group in (0, 1)]
    spread = max(points[group == GROUPS].std() for group in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread
    np.testing.assert_array_equal(points, project(X, method))


def test_principal_components_are_those_of_the_singular_values():
    centred = X - X.mean(axis=0)
    found = principal_components(centred, 3)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :3] * s[:3]), atol=1e-8)


def test_channels_that_never_change_and_few_points():
    assert np.isfinite(project(np.ones((5, 3)) * np.arange(5)[:, None] ** [0, 1, 2], "tsne")).all()
    with pytest.raises(DataError, match="3 frames are too few"):
        project(X[:3], "pca")


def test_methods():
    with pytest.raises(DataError, match="one of tsne, pca, umap"):
        project(X, "lda")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap is installed")
def test_umap_is_asked_for_where_it_is_missing():
    with pytest.raises(DataError, match="pip install umap-learn"):
        project(X, "umap")
