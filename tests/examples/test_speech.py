"""What is said, how it sounds, and the shape of the mouth for it."""

from __future__ import annotations

import os
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from corpus.script import ACCENTS, SLOTS, SPLITS, VARIANTS, Voice
from corpus.speech import PAUSE, SpeechError, Synthesiser, Timed
from corpus.visemes import (
    DIMENSIONS,
    viseme_track,
    visemes_of,
)

SAID = ["bin", "blue", "at", "two", "now"]
VOICE = Voice("en-us+f2", 150, 50, 50)


def test_the_same_utterance_sounds_the_same_after_others(synthesiser: Synthesiser) -> None:
    first = synthesiser.say(SAID, VOICE, seed=7)
    synthesiser.say(["set", "white"], Voice("en+m3", 170, 30, 60), seed=3)
    again = synthesiser.say(SAID, VOICE, seed=7)
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.words == again.words
    assert first.phones == again.phones


def test_words_and_phones_follow_each_other_within_the_sound(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(SAID, VOICE, seed=0)
    duration = len(utterance.wave) / utterance.rate
    assert 1 < duration < 3
    assert [word.label for word in utterance.words] == SAID
    for times in (utterance.words, utterance.phones):
        assert all(timed.start < timed.end for timed in times)
        assert all(one.end <= other.start for one, other in pairwise(times))
        assert times[0].start >= 0
        assert times[-1].end <= duration


def test_words_begin_and_end_with_their_own_phones(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(["bin", "soon"], VOICE, seed=0)
    phones = [phone for phone in utterance.phones if not phone.label.startswith(PAUSE)]
    assert phones[0].label == "b"
    assert utterance.words[0].start == phones[0].start
    assert utterance.words[1].start == next(phone.start for phone in phones if phone.label == "s")
    assert utterance.words[-1].end == phones[-1].end


def test_speech_is_loud_where_vowels_are_and_quiet_after_the_last_word(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(SAID, VOICE, seed=0)
    wave = utterance.wave.astype(float)
    vowel = next(phone for phone in utterance.phones if phone.label == "u:")
    loud = wave[int(vowel.start * utterance.rate) : int(vowel.end * utterance.rate)].std()
    tail = wave[int((utterance.words[-1].end + 0.01) * utterance.rate) :]
    assert loud > 1000
    assert len(tail) == 0 or tail.std() < 0.2 * loud


def test_text_that_is_not_one_word_a_word_is_refused(synthesiser: Synthesiser) -> None:
    with pytest.raises(SpeechError, match="words"):
        synthesiser.say(["bin blue", "at"], VOICE, seed=0)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpeechError, match=r"pip install 'av_ssl\[toy\]'"):
        Synthesiser()


def test_a_platform_without_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(SpeechError, match="fork"):
        Synthesiser()


def test_no_voice_variant_is_in_two_splits() -> None:
    for one, other in combinations(SPLITS, 2):
        assert not set(VARIANTS[one]) & set(VARIANTS[other])


@pytest.mark.parametrize("split", SPLITS)
def test_espeak_has_every_variant(split: str, synthesiser: Synthesiser) -> None:
    for variant in VARIANTS[split]:
        assert len(synthesiser.say(["two"], Voice("en" + variant, 150, 50, 50), seed=0).wave) > 2000


@pytest.mark.parametrize("accent", ACCENTS)
def test_every_phone_of_every_word_has_visemes(accent: str, synthesiser: Synthesiser) -> None:
    voice = Voice(accent, 150, 50, 50)
    for turn in range(max(map(len, SLOTS))):
        words = [slot[turn % len(slot)] for slot in SLOTS]
        for phone in synthesiser.say(words, voice, seed=0).phones:
            visemes_of(phone.label)


def test_a_voice_that_espeak_lacks_is_named(synthesiser: Synthesiser) -> None:
    with pytest.raises(SpeechError, match="en-gb-nowhere"):
        synthesiser.say(["two"], Voice("en-gb-nowhere", 150, 50, 50), seed=0)


JAW = DIMENSIONS.index("jaw")


def track_of(labels: list[str], difficulty: float = 0, seed: int = 0) -> np.ndarray:
    """A track of 25 frames with five phones of 200 ms."""
    phones = [Timed(label, 0.2 * i, 0.2 * (i + 1)) for i, label in enumerate(labels)]
    return viseme_track(phones, 25, 25.0, np.random.default_rng(seed), difficulty)


def test_an_unknown_phone_is_named() -> None:
    with pytest.raises(ValueError, match="'q;' has no viseme"):
        visemes_of("q;")


def test_open_vowels_open_and_bilabials_shut() -> None:
    track = track_of(["_", "a", "b", "a", "_"])
    assert track[12, JAW] < 0.1  # the middle of the b
    assert track[7, JAW] > 0.6
    assert track[17, JAW] > 0.6


def test_difficulty_moves_the_lips_away_from_what_is_said() -> None:
    labels = ["b", "a", "f", "u:", "a"]
    clear = track_of(labels)
    seeds = range(20)
    astray = [
        np.mean([np.abs(track_of(labels, difficulty, seed) - clear).mean() for seed in seeds])
        for difficulty in (0.2, 0.5, 1.0)
    ]
    assert 0 < astray[0] < astray[1] < astray[2]
