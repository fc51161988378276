"""RAVEn's setting, and what `mask_semantics` makes of it; other options: test_masking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fairseq.data.data_utils import compute_mask_indices

from av_ssl.data.spans import SpanMask, _separate_spans, draw_spans

RNG = np.random.default_rng
CLIPS = 8
DRAWS = 60


def mean_share(spans: SpanMask, frames: int) -> float:
    rng = RNG(0)
    return float(np.mean([draw_spans([frames] * CLIPS, frames, spans, rng).mean() for _ in range(DRAWS)]))


# Measured with fairseq 0.12.2's compute_mask_indices for batches of 8 clips.
@pytest.mark.parametrize(
    ("probability", "shares"),
    [
        (0.2, {50: 0.155, 100: 0.160, 150: 0.174, 300: 0.175, 600: 0.178}),
        (0.4, {50: 0.300, 100: 0.319, 150: 0.324, 300: 0.332, 600: 0.336}),
    ],
)
def test_masked_share_of_a_fraction(probability: float, shares: dict[int, float]) -> None:
    for frames, share in shares.items():
        assert mean_share(SpanMask(probability, 3, min_spans=1), frames) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("probability", "share"), [(0.2, 0.488), (0.4, 0.784)])
@pytest.mark.parametrize("frames", [150, 300, 600])
def test_masked_share_of_a_start_probability(probability: float, share: float, frames: int) -> None:
    spans = SpanMask(probability, 3, min_spans=1, equal_counts=False, semantics="start_prob")
    assert mean_share(spans, frames) == pytest.approx(share, abs=0.01)


def test_each_frame_is_masked_as_often_as_by_fairseq() -> None:
    """Also at the ends of clips and where clips of a batch differ in length."""
    lengths, frames, draws = [20, 12, 5], 20, 1000
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    rng, spans = RNG(0), SpanMask(0.2, 3, min_spans=1)
    np.random.seed(0)
    ours, original = np.zeros((3, frames)), np.zeros((3, frames))
    for _ in range(draws):
        ours += draw_spans(lengths, frames, spans, rng)
        original += compute_mask_indices((3, frames), padding, 0.2, 3, min_masks=1)
    np.testing.assert_allclose(ours / draws, original / draws, atol=0.06)  # 3 standard deviations


def test_every_frame_may_start_a_span() -> None:
    single = SpanMask(0.3, 1, min_spans=0, equal_counts=False, semantics="start_prob")
    rng = RNG(0)
    often = np.mean([draw_spans([10], 10, single, rng)[0] for _ in range(1000)], axis=0)
    np.testing.assert_allclose(often, 0.3, atol=0.05)
    always = SpanMask(1, 3, equal_counts=False, semantics="start_prob")
    assert draw_spans([10], 10, always, rng).all()


def test_start_probability_keeps_the_least_number_of_spans() -> None:
    spans = SpanMask(1e-9, 3, min_spans=1, semantics="start_prob")
    for seed in range(20):
        assert 1 <= draw_spans([10], 10, spans, RNG(seed)).sum() <= 3
    assert draw_spans([1], 1, SpanMask(0.1, 3, min_spans=2, semantics="start_prob"), RNG(0)).shape == (1, 1)


def test_spans_that_do_not_overlap_are_placed_longest_first() -> None:
    """A short span in the way would leave no room for the long one."""
    spans = SpanMask(1, 7, overlap=False, min_spans=1)
    for seed in range(10):
        assert len(_separate_spans(8, np.array([2, 7]), spans.min_space, RNG(seed))) >= 7


def test_unknown_semantics_are_refused() -> None:
    with pytest.raises(ValueError, match="mask_semantics is 'share'; it must be one of fraction, start_prob"):
        SpanMask(0.2, 3, semantics="share")
    with pytest.raises(ValueError, match=r"mask_semantics=start_prob, 1\.2 is no probability"):
        SpanMask(1.2, 3, semantics="start_prob")
    SpanMask(1.2, 3)
