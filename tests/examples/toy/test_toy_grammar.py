from __future__ import annotations

import numpy as np
from corpus.grammar import SLOTS, WORDS, sentence


def test_there_are_24_different_words() -> None:
    assert len(WORDS) == len(set(WORDS)) == 24


def test_a_sentence_takes_one_word_of_each_slot() -> None:
    words = sentence(np.random.default_rng(0))
    assert len(words) == 5
    assert all(word in slot for word, slot in zip(words, SLOTS, strict=True))


def test_every_word_is_used_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    said = [word for _ in range(800) for word in sentence(rng)]
    for slot in SLOTS:
        for word in slot:
            assert abs(said.count(word) * len(slot) / 800 - 1) < 0.3, word
