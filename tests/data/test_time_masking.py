from __future__ import annotations

import numpy as np
import pytest

from av_ssl.data.clip_reader import TimeMask

RNG = np.random.default_rng
VIDEO = TimeMask(0.4, 1.0)


def runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the stretches that are masked."""
    edges = np.flatnonzero(np.diff(np.pad(mask, 1).astype(int)))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize(("length", "most"), [(1, 1), (25, 1), (26, 2), (75, 3), (76, 4)])
def test_one_mask_for_each_second_begun(length: int, most: int) -> None:
    counts = [len(runs(VIDEO.draw(length, 25, RNG(seed)))) for seed in range(300)]
    assert max(counts) <= most
    if length > 10:
        assert max(counts) == most


def test_lengths_are_uniform_below_the_longest() -> None:
    """With one mask a draw: 0 to 9 frames, each in a tenth of the draws."""
    masked = [int(VIDEO.draw(25, 25, RNG(seed)).sum()) for seed in range(1500)]
    np.testing.assert_allclose(np.bincount(masked, minlength=10) / 1500, 0.1, atol=0.03)


def test_masks_are_whole_and_reach_both_ends() -> None:
    draws = [VIDEO.draw(25, 25, RNG(seed)) for seed in range(1000)]
    assert all(len(runs(mask)) <= 1 for mask in draws)
    assert any(mask[0] for mask in draws)
    assert any(mask[-1] for mask in draws)


def test_samples_are_masked_one_by_one() -> None:
    mask = TimeMask(0.6, 2.0).draw(80_000, 16_000, RNG(0))  # 5 s: 3 masks
    assert mask.dtype == np.bool_
    assert 1 <= len(runs(mask)) <= 3
    assert 0 < mask.sum() <= 3 * 9_599
    assert any(length % 640 for length in runs(mask))


@pytest.mark.parametrize("length", range(1, 12))
def test_short_clips_are_never_masked_as_a_whole(length: int) -> None:
    assert all(not VIDEO.draw(length, 25, RNG(seed)).all() for seed in range(200))


def test_long_clips_lose_the_expected_share() -> None:
    """A mean of 4.5 of 25 frames, less what overlaps."""
    share = np.mean([VIDEO.draw(250, 25, RNG(seed)).mean() for seed in range(300)])
    assert share == pytest.approx(1 - (1 - 4.5 / 250) ** 10, abs=0.01)


@pytest.mark.parametrize(("longest", "stride"), [(0, 1), (-0.4, 1), (0.4, 0)])
def test_settings_out_of_range_are_refused(longest: float, stride: float) -> None:
    with pytest.raises(ValueError, match="both must be above 0"):
        TimeMask(longest, stride)
