from __future__ import annotations

import numpy as np
from corpus import warp


def test_a_field_reproduces_its_points() -> None:
    rng = np.random.default_rng(0)
    points, moves = rng.uniform(0, 256, (40, 2)), rng.normal(0, 5, (40, 2))
    np.testing.assert_allclose(warp.evaluate(warp.fit(points, moves), points, points), moves, atol=1.0)


def test_an_affine_map_is_exact_everywhere() -> None:
    rng = np.random.default_rng(0)
    points, places = rng.uniform(0, 256, (40, 2)), rng.uniform(0, 256, (100, 2))
    matrix, shift = np.array([[0.1, -0.05], [0.02, 0.08]]), np.array([3.0, -2.0])
    field = warp.evaluate(warp.fit(points, points @ matrix + shift), points, places)
    np.testing.assert_allclose(field, places @ matrix + shift, atol=1e-3)


def test_a_batch_equals_its_parts() -> None:
    rng = np.random.default_rng(0)
    points, moves = rng.uniform(0, 256, (3, 2, 20, 2)), rng.normal(0, 5, (3, 2, 20, 2))
    batch = warp.fit(points, moves)
    assert batch.shape == (3, 2, 23, 2)
    np.testing.assert_allclose(batch[1, 0], warp.fit(points[1, 0], moves[1, 0]), rtol=1e-4, atol=1e-5)
