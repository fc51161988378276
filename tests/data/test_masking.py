from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from av_ssl.data.masking import StreamMasking, replacement_frames, widen
from av_ssl.data.spans import SpanMask, draw_spans

AUDIO, VIDEO = SpanMask(0.8, 10), SpanMask(0.3, 5)
RNG = np.random.default_rng


def masking(**settings) -> StreamMasking:
    defaults = {"audio": AUDIO, "video": VIDEO, "modality_dropout": 0.5, "audio_dropout": 0.5}
    return StreamMasking(**{**defaults, **settings})


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.pad(mask, 1).astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


# -- spans ---------------------------------------------------------------------------------------------------


def test_masked_share_of_the_recipes() -> None:
    """Measured with the original sampler for 8 clips of 300 frames: audio 0.51, video 0.245, either 0.62."""
    rng, shares = RNG(0), []
    for _ in range(60):
        audio, video = (draw_spans([300] * 8, 300, spans, rng) for spans in (AUDIO, VIDEO))
        shares.append((audio.mean(), video.mean(), (audio | video).mean()))
    np.testing.assert_allclose(np.mean(shares, axis=0), [0.51, 0.245, 0.62], atol=0.02)


def test_clips_have_equally_many_masked_frames_and_no_masked_padding() -> None:
    lengths = [100, 80, 37, 5]
    for seed in range(20):
        mask = draw_spans(lengths, 120, AUDIO, RNG(seed))
        assert len(set(mask.sum(1))) == 1
        assert mask.any()
        for row, length in zip(mask, lengths, strict=True):
            assert not row[length:].any()


def test_unequal_counts_keep_spans_whole() -> None:
    spans = SpanMask(0.3, 5, equal_counts=False)
    mask = draw_spans([300, 150, 75], 300, spans, RNG(0))
    assert len(set(mask.sum(1))) > 1
    for row, length in zip(mask, (300, 150, 75), strict=True):
        assert all(end - start >= 5 or end == length for start, end in runs(row))


def test_masks_do_not_depend_on_padding() -> None:
    """AV2vec: the number of frames in the loss does not change with the padding of the batch."""
    lengths = [90, 60]
    short = draw_spans(lengths, 90, AUDIO, RNG(3))
    long = draw_spans(lengths, 200, AUDIO, RNG(3))
    np.testing.assert_array_equal(short, long[:, :90])
    assert not long[:, 90:].any()
    sizes = {len(masking().draw(lengths, frames, RNG(5))["loss_index"]) for frames in (90, 128, 500)}
    assert len(sizes) == 1


def test_at_least_two_spans() -> None:
    for seed in range(20):
        mask = draw_spans([60], 60, SpanMask(0.01, 5), RNG(seed))
        assert mask.sum() >= 6  # two starts, one frame apart or more
    assert draw_spans([60], 60, SpanMask(0.01, 5, min_spans=1), RNG(0)).sum() in (5,)


@pytest.mark.parametrize("length", range(1, 15))
def test_short_clips(length: int) -> None:
    for seed in range(10):
        mask = draw_spans([length], length, AUDIO, RNG(seed))
        assert mask.shape == (1, length)
        assert mask.any() or length == 1


def test_settings_of_spans_are_checked() -> None:
    with pytest.raises(ValueError, match=r"mask probability -0\.1 and length 5"):
        SpanMask(-0.1, 5)
    with pytest.raises(ValueError, match="length 0"):
        SpanMask(0.1, 0)


# -- both streams --------------------------------------------------------------------------------------------


def test_shapes_and_types() -> None:
    masks = masking().draw([60, 40], 64, RNG(0))
    assert masks["audio"].shape == masks["video"].shape == masks["video_source"].shape == (2, 64)
    assert masks["audio"].dtype == masks["video"].dtype == torch.bool
    assert masks["video_source"].dtype == masks["loss_index"].dtype == torch.int64
    assert not torch.equal(masks["audio"], masks["video"])


def test_frames_to_show_are_drawn_for_input_masks_alone() -> None:
    whole = masking().draw([60, 40], 64, RNG(7))
    without = dataclasses.replace(masking(), replacement=None).draw([60, 40], 64, RNG(7))
    assert without["video_source"] is None
    for key in ("audio", "video", "loss_index", "rest_index"):  # the other draws do not hang on it
        assert torch.equal(whole[key], without[key])


def test_same_generator_same_masks() -> None:
    first, second = (masking().draw([60, 40], 64, RNG(7)) for _ in range(2))
    for key in ("audio", "video", "video_source", "loss_index"):
        assert torch.equal(first[key], second[key])
    assert first["dropped"] == second["dropped"]


def test_modality_dropout_takes_a_quarter_each() -> None:
    rng = RNG(0)
    dropped = [masking().draw([20], 20, rng)["dropped"] for _ in range(1000)]
    assert dropped.count(None) == pytest.approx(500, abs=60)
    assert dropped.count("audio") == pytest.approx(250, abs=50)
    assert dropped.count("video") == pytest.approx(250, abs=50)


def test_validation_drops_no_stream() -> None:
    draws = [masking(modality_dropout=1.0).draw([20], 20, RNG(s), training=False) for s in range(10)]
    assert {draw["dropped"] for draw in draws} == {None}
    assert all(draw["audio"].any() for draw in draws)


def flat(mask: torch.Tensor) -> list[int]:
    return mask.flatten().nonzero().squeeze(1).tolist()


def test_loss_on_union() -> None:
    for seed in range(10):
        masks = masking().draw([50, 30], 50, RNG(seed))
        assert masks["loss_index"].tolist() == flat(masks["audio"] | masks["video"])


@pytest.mark.parametrize(
    ("audio_dropout", "dropped", "left"), [(1.0, "audio", "video"), (0.0, "video", "audio")]
)
def test_loss_on_surviving_stream(audio_dropout: float, dropped: str, left: str) -> None:
    parts = masking(modality_dropout=1.0, audio_dropout=audio_dropout, loss_on="surviving")
    masks = parts.draw([50, 30], 50, RNG(0))
    assert masks["dropped"] == dropped
    assert masks["loss_index"].tolist() == flat(masks[left])
    both = masking(modality_dropout=0.0, loss_on="surviving").draw([50, 30], 50, RNG(0))
    assert both["loss_index"].tolist() == flat(both["audio"] | both["video"])


def test_loss_on_all_real_frames() -> None:
    masks = masking(loss_on="all").draw([5, 3], 5, RNG(0))
    assert masks["loss_index"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_margin_widens_video_and_stays_out_of_the_loss() -> None:
    plain, wide = (masking(video_margin=margin).draw([60, 40], 60, RNG(0)) for margin in (0, 2))
    assert torch.equal(plain["audio"], wide["audio"])
    assert torch.equal(plain["loss_index"], wide["loss_index"])
    assert wide["video"].sum() > plain["video"].sum()
    assert not wide["video"][1, 40:].any()


def test_widen() -> None:
    mask = np.array([[0, 0, 0, 1, 0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(widen(mask, 2), [[0, 1, 1, 1, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(widen(mask, 1), [[0, 0, 1, 1, 1, 0, 0, 1, 1]])


def test_shared_mask() -> None:
    masks = masking(video=AUDIO, shared=True).draw([60, 40], 60, RNG(0))
    assert torch.equal(masks["audio"], masks["video"])
    assert masks["loss_index"].tolist() == flat(masks["audio"])


def test_frames_out_of_the_loss() -> None:
    masks = masking().draw([60, 40], 60, RNG(0))
    counted, rest = set(masks["loss_index"].tolist()), set(masks["rest_index"].tolist())
    assert not counted & rest
    assert counted | rest == {*range(60), *range(60, 100)}


def test_masked_video_shows_another_clip() -> None:
    masks = masking(replacement="same_other_seq").draw([60] * 3, 60, RNG(0))
    shown = masks["video_source"]
    own = torch.arange(180).view(3, 60)
    assert torch.equal(shown[~masks["video"]], own[~masks["video"]])
    assert torch.equal((shown % 60)[masks["video"]], (own % 60)[masks["video"]])
    assert (shown // 60 != own // 60)[masks["video"]].all()
    assert not masks["zeroed"]


@pytest.mark.parametrize("replacement", ["same_seq", "same_other_seq"])
def test_single_clip_is_blanked(replacement: str) -> None:
    assert masking(replacement=replacement).draw([60], 60, RNG(0))["zeroed"]


@pytest.mark.parametrize(
    ("selection", "other", "low", "high"),
    [("uniform", 2, 2, 20), ("normal", 3, 1, 40), ("poisson", 0, 0, 40)],
)
def test_span_lengths_are_drawn(selection: str, other: float, low: int, high: int) -> None:
    lengths = SpanMask(0.8, 10, selection=selection, other=other).draw_lengths(2000, RNG(0))
    assert low <= lengths.min() < 10 < lengths.max() <= high
    assert abs(lengths.mean() - 10.5) < 1


def test_spans_that_do_not_overlap_keep_their_distance() -> None:
    spans = SpanMask(0.5, 5, equal_counts=False, overlap=False, min_space=2)
    for mask in draw_spans([100] * 20, 100, spans, RNG(0)):
        found = runs(mask)
        assert len(found) >= 9
        assert all(end - start == 5 for start, end in found)
        assert all(after[0] - before[1] >= 2 for before, after in pairwise(found))


def test_spans_without_room_are_left_out() -> None:
    spans = SpanMask(0.5, 5, min_spans=4, equal_counts=False, overlap=False)
    assert runs(draw_spans([7], 7, spans, RNG(0))[0])[0][1] <= 7
    assert not draw_spans([4], 4, spans, RNG(0)).any()


def test_unknown_ways_to_draw_are_refused() -> None:
    with pytest.raises(ValueError, match="mask_selection is 'fixed'; it must be one of static, uniform"):
        SpanMask(0.5, 5, selection="fixed")
    with pytest.raises(ValueError, match="selection_type is 'any'; it must be one of same_other"):
        masking(replacement="any")


def test_one_stream_may_stay_unmasked() -> None:
    masks = masking(video=SpanMask(0, 5)).draw([60, 40], 60, RNG(0))
    assert not masks["video"].any()
    assert torch.equal(masks["video_source"], torch.arange(120).view(2, 60))
    assert masks["loss_index"].tolist() == flat(masks["audio"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_on": "masked"}, "loss_on is 'masked'; it must be one of union, surviving, all"),
        ({"shared": True}, "equal settings for both streams"),
        ({"shared": True, "video": AUDIO, "video_margin": 2}, "no meaning"),
        ({"audio": SpanMask(0, 5), "video": SpanMask(0, 5)}, "leaves batches without a loss"),
        ({"video": SpanMask(0, 5), "loss_on": "surviving"}, "leaves batches without a loss"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masking(**settings)


# -- video masked at the input -------------------------------------------------------------------------------


def test_frames_that_are_not_masked_stay() -> None:
    mask = draw_spans([80, 60], 80, VIDEO, RNG(0))
    source = replacement_frames(mask, RNG(1))
    np.testing.assert_array_equal(source[~mask], np.tile(np.arange(80), (2, 1))[~mask])


def test_masked_run_never_shows_its_own_frames() -> None:
    for seed in range(200):
        rng = RNG(seed)
        length = int(rng.integers(1, 15))
        frames = int(rng.integers(3 * length, 60))
        start = int(rng.integers(0, frames - length + 1))
        mask = np.zeros((1, frames), bool)
        mask[0, start : start + length] = True
        taken = replacement_frames(mask, rng)[0, start : start + length]
        assert taken.min() >= 0
        assert taken.max() < frames
        assert not np.isin(taken, np.arange(start, start + length)).any()


def test_replacements_run_on_from_every_allowed_offset() -> None:
    mask = np.zeros((1, 20), bool)
    mask[0, 8:12] = True
    rng, offsets = RNG(0), set()
    for _ in range(500):
        taken = replacement_frames(mask, rng)[0, 8:12]
        offsets.add(int(taken[0]))
        np.testing.assert_array_equal(taken, np.minimum(taken[0] + np.arange(4), 19))
    assert offsets == {0, 1, 2, 3, *range(12, 20)}


def test_run_over_the_whole_clip_starts_at_zero() -> None:
    np.testing.assert_array_equal(replacement_frames(np.ones((1, 4), bool), RNG(0)), [[0, 1, 2, 3]])


def test_the_other_one_of_two_clips_replaces_masked_frames() -> None:
    masks = masking(replacement="same_other_seq").draw([60] * 2, 60, RNG(0))
    rows, frames = np.nonzero(masks["video"].numpy())
    assert len(rows)
    assert masks["video_source"][rows, frames].tolist() == ((1 - rows) * 60 + frames).tolist()
