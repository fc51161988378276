"""Linear probes on made-up features."""

import numpy as np
import pytest

from av_ssl.analysis.probe import group_folds, probe
from av_ssl.errors import DataError

RNG = np.random.default_rng(0)
SPEAKERS = np.repeat([f"s{number}" for number in range(6)], 50)
LABELS = RNG.choice(["a", "b", "c"], 300, p=[0.5, 0.3, 0.2])
ONE_HOT = (LABELS[:, None] == ["a", "b", "c"]).astype(np.float32)


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(300, channels)).astype(np.float32)


def test_separable_features_are_read_off():
    mixed = np.hstack([5 * ONE_HOT, noise(5)]) @ np.random.default_rng(2).normal(size=(8, 8))
    score = probe(1000 * mixed + 7, LABELS, SPEAKERS)
    assert score.accuracy > 0.98
    assert len(score.folds) == 4


def test_noise_is_worth_no_more_than_the_most_frequent_class():
    score = probe(noise(4), LABELS, SPEAKERS)
    assert score.majority == pytest.approx(np.mean(LABELS == "a"))
    assert abs(score.accuracy - score.majority) < 0.08


def test_what_is_known_of_single_speakers_does_not_help():
    # Each frame's channels say whose it is, and speakers say one class each: nothing holds for others.
    who = (SPEAKERS[:, None] == np.unique(SPEAKERS)).astype(np.float32)
    labels = np.where(np.isin(SPEAKERS, ["s0", "s2", "s4"]), "a", "b")
    assert probe(who + 0.01 * noise(6), labels, SPEAKERS, folds=6).accuracy < 0.6


def test_a_channel_that_never_changes_does_no_harm():
    assert probe(np.hstack([5 * ONE_HOT, np.ones((300, 1))]), LABELS, SPEAKERS).accuracy == 1


def test_the_draw_is_seeded():
    features = ONE_HOT + noise(3)
    assert probe(features, LABELS, SPEAKERS, seed=3) == probe(features, LABELS, SPEAKERS, seed=3)
    assert probe(features, LABELS, SPEAKERS, seed=3).folds != probe(features, LABELS, SPEAKERS, seed=4).folds


def test_folds_hold_whole_speakers_each_once():
    tested = []
    for train, test in group_folds(SPEAKERS, 4, seed=0):
        assert not set(SPEAKERS[train]) & set(SPEAKERS[test])
        assert len(train) + len(test) == 300
        tested += test.tolist()
    assert sorted(tested) == list(range(300))


def test_what_cannot_be_probed():
    with pytest.raises(DataError, match="7 folds of 6 speakers"):
        probe(ONE_HOT, LABELS, SPEAKERS, folds=7)
    with pytest.raises(DataError, match="1 folds"):
        probe(ONE_HOT, LABELS, SPEAKERS, folds=1)
    with pytest.raises(DataError, match="of one class, a"):
        probe(ONE_HOT, ["a"] * 300, SPEAKERS)
