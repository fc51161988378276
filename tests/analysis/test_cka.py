"""Linear CKA: known values, what it does not look at, frames matched by time."""

import numpy as np
import pytest

from av_ssl.analysis.cka import cka_matrix, interpolated
from av_ssl.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(300, 6)), RNG.normal(size=(300, 4))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    return float(cka_matrix(x[:, None], y[:, None])[0, 0])


def rotation(size: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0]


def test_rotation_shift_and_one_scale_do_not_count():
    expected = linear_cka(X, Y)
    assert linear_cka(-7 * X @ rotation(6) + 3, Y) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(X, 0.01 * Y @ rotation(4) - 5) == pytest.approx(expected, abs=1e-12)


def test_a_value_by_hand():
    # Centred, orthogonal columns a, b of squared length 2: x = (a, b), y = (a).  ||y'x||^2 = 4,
    # ||x'x|| = sqrt(8), ||y'y|| = 2.
    a, b = np.array([1.0, -1, 0, 0]), np.array([0.0, 0, 1, -1])
    assert linear_cka(np.stack([a, b], 1), a[:, None]) == pytest.approx(4 / (np.sqrt(8) * 2))
    assert linear_cka(a[:, None], b[:, None]) == pytest.approx(0, abs=1e-15)


def test_it_is_the_alignment_of_centred_gram_matrices():
    centre = np.eye(300) - 1 / 300
    k, m = centre @ X @ X.T @ centre, centre @ Y @ Y.T @ centre
    assert linear_cka(X, Y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_all_pairs_of_layers():
    x, y = np.stack([X, X**2, X**3], axis=1), np.stack([X, X @ rotation(6)], axis=1)
    found = cka_matrix(x, y)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found[0], 1)
    assert found[1, 0] == pytest.approx(linear_cka(X**2, X))


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match="not of 300 and 299"):
        linear_cka(X, Y[1:])
    with pytest.raises(DataError, match="the same in all frames"):
        linear_cka(X, np.ones((300, 2)))


def test_a_frame_of_25_hz_gets_the_mean_of_its_two_of_50_hz():
    fine = RNG.normal(size=(7, 3, 2)).astype(np.float32)  # the last one is missing, as of wav2vec 2.0
    found = interpolated(fine, (np.arange(7) + 0.5) / 50, (np.arange(4) + 0.5) / 25)
    np.testing.assert_allclose(found[:3], (fine[0:6:2] + fine[1:6:2]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[3], fine[6])
