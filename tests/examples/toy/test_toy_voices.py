from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from corpus.grammar import SLOTS
from corpus.speech import SpeechError, Synthesiser
from corpus.visemes import visemes_of
from corpus.voices import ACCENTS, SPLITS, VARIANTS, Voice, draw_voice


def test_no_voice_variant_is_in_two_splits() -> None:
    for one, other in combinations(SPLITS, 2):
        assert not set(VARIANTS[one]) & set(VARIANTS[other])


def test_speakers_use_all_variants_before_one_comes_again() -> None:
    count = len(VARIANTS["test"])
    names = [draw_voice("test", number, np.random.default_rng(0)).name for number in range(count + 1)]
    assert len(set(names)) == count
    assert names[0] == names[count]


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
