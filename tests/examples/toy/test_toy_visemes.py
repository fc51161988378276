from __future__ import annotations

import numpy as np
import pytest
from corpus.speech import Timed
from corpus.visemes import DIMENSIONS, DOMINANCE, HIGHEST, LOWEST, PHONE_VISEMES, REST, VISEMES, visemes_of
from corpus.visemes import viseme_track as make_track

JAW, WIDTH, TONGUE = (DIMENSIONS.index(name) for name in ("jaw", "width", "tongue"))


def viseme_track(labels: list[str], difficulty: float = 0, seed: int = 0) -> np.ndarray:
    """A track of 25 frames with five phones of 200 ms."""
    phones = [Timed(label, 0.2 * i, 0.2 * (i + 1)) for i, label in enumerate(labels)]
    return make_track(phones, 25, 25.0, np.random.default_rng(seed), difficulty)


def test_all_names_in_the_tables_exist() -> None:
    assert set(DOMINANCE) <= set(VISEMES)
    assert {name for names in PHONE_VISEMES.values() for name in names} <= set(VISEMES)


def test_every_viseme_is_within_the_limits() -> None:
    for viseme in VISEMES.values():
        assert (np.array(viseme) >= LOWEST).all()
        assert (np.array(viseme) <= HIGHEST).all()


def test_marks_of_a_phone_are_ignored() -> None:
    assert visemes_of("t[") == visemes_of("t")
    assert visemes_of("aI") == ("ah", "ee")
    assert visemes_of("h") == ()


def test_an_unknown_phone_is_named() -> None:
    with pytest.raises(ValueError, match="'q;' has no viseme"):
        visemes_of("q;")


def test_silence_is_a_mouth_at_rest() -> None:
    np.testing.assert_allclose(viseme_track(["_", "_", "_", "_", "_"]), np.tile(REST, (25, 1)), atol=1e-12)


def test_open_vowels_open_and_bilabials_shut() -> None:
    track = viseme_track(["_", "a", "b", "a", "_"])
    assert track[12, JAW] < 0.1  # the middle of the b
    assert track[7, JAW] > 0.6
    assert track[17, JAW] > 0.6


def test_rounding_narrows_spreading_widens_and_th_shows_the_tongue() -> None:
    track = viseme_track(["_", "w", "i:", "T", "_"])
    assert track[7, WIDTH] < 0.75
    assert track[12, WIDTH] > 1.1
    assert track[17, TONGUE] > 0.7


def test_a_velar_takes_the_shape_of_its_neighbours() -> None:
    short = [Timed("u:", 0, 0.48), Timed("k", 0.48, 0.52), Timed("u:", 0.52, 1)]
    track = make_track(short, 25, 25.0, np.random.default_rng(0), 0)
    assert track[12, WIDTH] < 0.7 < VISEMES["kg"].width


def test_no_difficulty_needs_no_luck() -> None:
    labels = ["b", "a", "f", "u:", "_"]
    np.testing.assert_array_equal(viseme_track(labels, seed=1), viseme_track(labels, seed=2))


def test_difficulty_moves_the_lips_away_from_what_is_said() -> None:
    labels = ["b", "a", "f", "u:", "a"]
    clear = viseme_track(labels)
    seeds = range(20)
    astray = [
        np.mean([np.abs(viseme_track(labels, difficulty, seed) - clear).mean() for seed in seeds])
        for difficulty in (0.2, 0.5, 1.0)
    ]
    assert 0 < astray[0] < astray[1] < astray[2]


def test_tracks_stay_within_the_limits_at_any_difficulty() -> None:
    for seed in range(10):
        track = viseme_track(["a", "f", "T", "w", "i:"], difficulty=1, seed=seed)
        assert (track >= LOWEST).all()
        assert (track <= HIGHEST).all()
