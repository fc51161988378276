from __future__ import annotations

import os
import sys
from itertools import pairwise

import numpy as np
import pytest
from corpus.speech import SpeechError, Synthesiser, is_pause
from corpus.voices import Voice

WORDS = ["bin", "blue", "at", "two", "now"]
VOICE = Voice("en-us+f2", 150, 50, 50)


def test_the_same_utterance_sounds_the_same_after_others(synthesiser: Synthesiser) -> None:
    first = synthesiser.say(WORDS, VOICE, seed=7)
    synthesiser.say(["set", "white"], Voice("en+m3", 170, 30, 60), seed=3)
    again = synthesiser.say(WORDS, VOICE, seed=7)
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.words == again.words
    assert first.phones == again.phones


def test_two_synthesisers_agree(synthesiser: Synthesiser) -> None:
    first = synthesiser.say(WORDS, VOICE, seed=7)
    np.testing.assert_array_equal(first.wave, Synthesiser().say(WORDS, VOICE, seed=7).wave)


def test_words_and_phones_follow_each_other_within_the_sound(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(WORDS, VOICE, seed=0)
    duration = len(utterance.wave) / utterance.rate
    assert 1 < duration < 3
    assert [word.label for word in utterance.words] == WORDS
    for times in (utterance.words, utterance.phones):
        assert all(timed.start < timed.end for timed in times)
        assert all(one.end <= other.start for one, other in pairwise(times))
        assert times[0].start >= 0
        assert times[-1].end <= duration


def test_words_begin_and_end_with_their_own_phones(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(["bin", "soon"], VOICE, seed=0)
    phones = [phone for phone in utterance.phones if not is_pause(phone.label)]
    assert phones[0].label == "b"
    assert utterance.words[0].start == phones[0].start
    assert utterance.words[1].start == next(phone.start for phone in phones if phone.label == "s")
    assert utterance.words[-1].end == phones[-1].end


def test_speech_is_loud_where_vowels_are_and_quiet_after_the_last_word(synthesiser: Synthesiser) -> None:
    utterance = synthesiser.say(WORDS, VOICE, seed=0)
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
