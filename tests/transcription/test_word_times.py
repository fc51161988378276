"""Times of words: the alignment against all paths, and where words begin and end."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.recording import Part
from av_ssl.transcription import forced_alignment
from av_ssl.transcription.recording import Work
from av_ssl.transcription.transcript import Segment
from av_ssl.transcription.word_times import (
    SOFT,
    Spelling,
    align,
    best_path,
    frames_needed,
    loudness,
    pauses,
    spell,
    spell_text,
)


def random_log_probs(frames: int, classes: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, classes))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [2, 1, 2]])
@pytest.mark.parametrize("frames", [4, 5])
def test_the_best_path_is_the_best_of_all(tokens, frames):
    log_probs = random_log_probs(frames, 3, seed=len(tokens))
    states = best_path(log_probs, tokens)
    labels = [tokens[state // 2] if state % 2 else 0 for state in states]
    texts = {
        path: sum(log_probs[frame, label] for frame, label in enumerate(path))
        for path in itertools.product(range(3), repeat=frames)
        if [label for label, _ in itertools.groupby(path) if label] == tokens
    }
    assert tuple(labels) == max(texts, key=texts.__getitem__)
    assert frames_needed(tokens) == min(
        length
        for length in range(1, 7)
        for path in itertools.product(range(3), repeat=length)
        if [label for label, _ in itertools.groupby(path) if label] == tokens
    )


def spikes(frames: int, places: dict[int, int], classes: int = 5) -> np.ndarray:
    """Log-probabilities that are 0.9 for the tokens at these frames, and for blanks at all others."""
    labels = np.zeros(frames, int)
    for frame, token in places.items():
        labels[frame] = token
    probabilities = np.full((frames, classes), 0.1 / (classes - 1))
    probabilities[np.arange(frames), labels] = 0.9
    return np.log(probabilities)


WORDS = [Spelling("one", (1, 2)), Spelling("two", (3,)), Spelling("three", (4,))]
SPIKES = {25: 1, 30: 2, 37: 3, 60: 4}


def sound(*loud: tuple[float, float], seconds: float = 4.0) -> np.ndarray:
    """Noise that is loud between these times."""
    samples = np.random.default_rng(0).normal(0, 10, round(seconds * 16000))
    for start, end in loud:
        samples[round(start * 16000) : round(end * 16000)] *= 100
    return samples.round().astype(np.int16)


def test_words_last_from_pause_to_pause():
    heard = loudness(sound((0.9, 1.6), (2.2, 2.8)))
    one, two, three = align(spikes(100, SPIKES), WORDS, heard)
    assert [one.word, two.word, three.word] == ["one", "two", "three"]
    assert one.start == pytest.approx(0.9 - SOFT, abs=0.021)
    assert one.end == two.start
    assert 31 / 25 < one.end < 37 / 25
    assert two.end == pytest.approx(1.6 + SOFT, abs=0.021)
    assert (three.start, three.end) == pytest.approx((2.2 - SOFT, 2.8 + SOFT), abs=0.021)
    assert [word.score for word in (one, two, three)] == pytest.approx([0.9] * 3)


def test_without_sound_pauses_are_guessed_and_times_stay_in_order():
    words = align(spikes(100, SPIKES), WORDS)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert words[0].end == words[1].start
    assert words[1].end < words[2].start  # 0.9 s lie between
    assert 0 <= times[0] < 1
    assert times[-1] <= 4
    # Nothing is heard in even noise, and a text that fills all frames has no room for pauses.
    assert align(spikes(100, SPIKES), WORDS, loudness(sound())) == words
    full = align(spikes(4, {0: 1, 1: 2, 2: 3, 3: 4}), WORDS)
    assert [(word.start, word.end) for word in full] == [(0, 0.08), (0.08, 0.12), (0.12, 0.16)]


@pytest.mark.parametrize("choices", [(("audio", "video"), ("audio",)), (("video",),)])
def test_parts_of_a_recording_are_aligned_as_one(monkeypatch, choices):
    """The face is lost after 2.24 s. The sound gives the pauses, unless the recogniser takes video alone."""
    loud, video = sound((0.9, 1.6), (2.2, 2.8)), choices[0] == ("video",)
    parts = [
        Part(start / 25, np.zeros((end - start, 1, 1), np.uint8) if video or not start else None,
             loud[640 * start : 640 * end])
        for start, end in ((0, 56), (50, 100))
    ]  # fmt: skip

    class Given(Work):
        def __post_init__(self):
            self.recording = SimpleNamespace(name="talk", parts=lambda face: iter(parts))
            self.choices = list(choices)

        check = notes = lambda self: ()

    def outputs(parts, streams):
        return [spikes(100, SPIKES)[round(25 * part.start) : round(25 * part.end)] for part in parts]

    monkeypatch.setattr(forced_alignment, "Work", Given)
    recogniser = SimpleNamespace(spell_text=lambda text: [WORDS[:2], WORDS[2:]], ctc_log_probs=outputs)
    found = forced_alignment.align_recording(recogniser, None, "one two\nthree").segments
    one, two, three = align(spikes(100, SPIKES), WORDS, None if video else loudness(loud))
    score, used = pytest.approx(0.9), ("video", "video") if video else ("av", "audio")
    assert found == (
        Segment(one.start, two.end, "one two", (one, two), score, used[0]),
        Segment(three.start, three.end, "three", (three,), score, used[1]),
    )


@pytest.mark.parametrize("seed", range(5))
def test_times_are_in_order_whatever_is_heard(seed):
    rng = np.random.default_rng(seed)
    words = [Spelling(f"w{number}", (number % 4 + 1,)) for number in range(12)]
    levels = rng.choice([10.0, 60.0], 160).repeat(5)[:400].astype(np.float32)
    found = align(random_log_probs(100, 5, seed), words, levels)
    times = [time for word in found for time in (word.start, word.end)]
    assert times == sorted(times)
    assert min(times) >= 0
    assert max(times) <= 4
    assert all(0 < word.score <= 1 for word in found)
    assert min(word.end - word.start for word in found) > 0.0399


def test_a_pause_where_a_word_should_be_leaves_it_a_frame():
    """As where a weak model puts the last words into the silence at the end."""
    found = align(spikes(100, {20: 1, 97: 2, 98: 3, 99: 4}), WORDS, loudness(sound((0.5, 2.0))))
    assert [round(word.end - word.start, 3) >= 0.04 for word in found] == [True] * 3
    assert found[-1].end <= 4


def test_pauses():
    found = pauses(loudness(sound((0.5, 1.0), (1.03, 2.0))))
    assert found == pytest.approx(np.array([[0, 0.5], [2, 4]]), abs=0.021)  # 30 ms are none
    assert not len(pauses(loudness(sound())))
    assert not len(pauses(loudness(np.zeros(100, np.int16))))
    late = pauses(loudness(np.r_[np.zeros(16000, np.int16), sound((0.5, 1.0), (1.03, 2.0))]))
    assert late == pytest.approx(np.array([[0, 1.5], [3, 5]]), abs=0.031)  # zeros are not the room's level


def test_more_tokens_than_frames():
    words = align(spikes(3, {1: 2}), WORDS)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 0.12
    assert align(spikes(3, {}), []) == ()


def test_a_path_over_many_blocks_of_frames():
    tokens = [1, 2, 3, 3] * 5
    log_probs = random_log_probs(900, 5)
    states = best_path(log_probs, tokens)
    assert set(np.diff(states)) <= {0, 1, 2}
    assert list(dict.fromkeys(states[states % 2 == 1] // 2)) == list(range(20))
    # The same text in reverse order has the same score on the reversed recording.
    labels = np.r_[0, np.array([[token, 0] for token in tokens]).ravel()]
    backwards = best_path(log_probs[::-1], tokens[::-1])
    scores = [
        rows[np.arange(900), names[path]].sum()
        for rows, names, path in ((log_probs, labels, states), (log_probs[::-1], labels[::-1], backwards))
    ]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize(
    ("symbols", "pieces", "words"),
    [
        (["▁b", "in", "▁", "x", "▁two"], True, [("bin", (0, 1)), ("x", (2, 3)), ("two", (4,))]),
        (["▁", "▁a"], True, [("a", (0, 1))]),
        (["in", "▁a", "▁"], True, [("in", (0,)), ("a", (1,))]),
        (["bin", "blue"], False, [("bin", (0,)), ("blue", (1,))]),
        ([], True, []),
    ],
)
def test_pieces_make_words(symbols, pieces, words):
    found = spell(symbols, range(len(symbols)), pieces)
    assert [(each.word, each.tokens) for each in found] == words


def test_words_of_a_text():
    indices = {letter: number for number, letter in enumerate("abcdefgh'")}
    lines = spell_text("Bad, 'cab'\n\n -\nface", lambda word: list(word.lower()), indices)
    assert [[each.word for each in line] for line in lines] == [["Bad,", "'cab'"], ["face"]]
    assert lines[0][0].tokens == (1, 0, 3)
    symbols = [
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "caf\u00e9",
        "don't",
    ]  # with a vowel sign, which is no letter
    words = {symbol: number for number, symbol in enumerate(symbols)}
    (line,) = spell_text(f"{symbols[0]}, cafe\u0301! don\u2019t.", lambda word: [word], words)
    assert [each.tokens for each in line] == [(0,), (1,), (2,)]
    with pytest.raises(DataError, match=r"cannot spell 'zoo', '42'; .*numbers as words"):
        spell_text("bad zoo 42 zoo", lambda word: list(word), indices)
    for empty in ("", " \n", "- !"):
        with pytest.raises(DataError, match="no words"):
            spell_text(empty, list, indices)
