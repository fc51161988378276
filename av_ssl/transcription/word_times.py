"""Times of the words of a known text, by forced alignment with the outputs of a CTC head.

CTC says where a word is, not where it begins: its tokens are probable in a few frames each. Boundaries are
made of these by `word_boundaries`, a rule of our own [ours]. This module needs numpy alone, so that models in
another format can use it without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.layout import BLANK, FRAME_RATE, SAMPLE_RATE
from av_ssl.transcription.transcript import Word

Floats = NDArray[np.float64]
WORD_START = "\u2581"
"""With which sentencepiece begins a word."""
NAMED = 5
"""Words in a message."""


@dataclass(frozen=True)
class Spelling:
    """A word and the ids of its tokens."""

    word: str
    tokens: tuple[int, ...]


def spell(symbols: Sequence[str], ids: Sequence[int], pieces: bool) -> list[Spelling]:
    """The words that a recogniser's symbols make; unless they are sentencepiece's pieces, each is a word."""
    groups: list[list[int]] = []
    for place, symbol in enumerate(symbols):
        # A mark alone belongs to the word that follows it.
        if not groups or not pieces or (symbol.startswith(WORD_START) and symbols[place - 1] != WORD_START):
            groups.append([])
        groups[-1].append(place)
    spelled = [
        Spelling(
            "".join(symbols[place] for place in group).replace(WORD_START, ""),
            tuple(ids[place] for place in group),
        )
        for group in groups
    ]
    return [each for each in spelled if each.word]


def spell_text(
    text: str, encode: Callable[[str], Sequence[str]], indices: Mapping[str, int]
) -> list[Spelling]:
    """The words of a known text, separated by spaces.

    Punctuation that the dictionary lacks stays in a word, but has no token.

    Args:
        text: the words.
        encode: symbols of a word.
        indices: ids of the dictionary's symbols.

    Raises:
        DataError: the text is empty, or has words that the dictionary lacks.
    """
    words, unknown = [], []
    for word in text.split():
        spoken = "".join(each for each in word if each.isalnum() or each == "'")
        spellings = [encode(each) for each in dict.fromkeys((word, spoken))]
        known = next((each for each in spellings if all(symbol in indices for symbol in each)), None)
        if known is None:
            unknown.append(word)
        elif known:
            words.append(Spelling(word, tuple(indices[symbol] for symbol in known)))
    if unknown:
        named = ", ".join(map(repr, dict.fromkeys(unknown[:NAMED])))
        more = ", ..." if len(unknown) > NAMED else ""
        raise DataError(
            f"{len(unknown)} words of the text cannot be spelled with the model's dictionary: {named}{more}; "
            "write them as its training text did, numbers as words"
        )
    if not words:
        raise DataError("the text holds no words")
    return words


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest frames in which CTC can emit the tokens: equal neighbours need a blank between them."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


# -- the alignment -------------------------------------------------------------------------------------------


def align(
    log_probs: NDArray[np.floating],
    words: Sequence[Spelling],
    samples: NDArray[np.int16] | None = None,
    blank: int = BLANK,
) -> tuple[Word, ...]:
    """Times of words in a recording.

    Args:
        log_probs: log-probabilities ``[T, V]`` at 25 Hz of a CTC head.
        words: the text, in order.
        samples: the sound ``[N]`` at 16 kHz; pauses in it are where words begin and end. None: unknown.
        blank: id of CTC's blank.

    Returns:
        The words, none of which ends before it starts or after the next one starts.

    Raises:
        ValueError: there are too few frames for the text, see `frames_needed`.
    """
    tokens = [token for word in words for token in word.tokens]
    if not tokens:
        return ()
    if frames_needed(tokens) > len(log_probs):
        raise ValueError(f"{len(tokens)} tokens cannot be aligned with {len(log_probs)} frames")
    states = best_path(log_probs, tokens, blank)
    emitting = np.flatnonzero(states % 2)
    order = states[emitting] // 2
    scores = np.asarray(log_probs, np.float64)[emitting, np.take(tokens, order)]
    token_scores = np.bincount(order, scores, len(tokens)) / np.bincount(order, minlength=len(tokens))
    last = np.cumsum([len(word.tokens) for word in words]) - 1
    first = np.r_[0, last[:-1] + 1]
    onsets = emitting[np.searchsorted(order, first)].astype(np.float64)
    offsets = emitting[np.searchsorted(order, last, side="right") - 1] + 1.0
    starts, ends = word_boundaries(onsets, offsets, len(log_probs), samples)
    return tuple(
        Word(word.word, round(float(start), 3), round(float(end), 3), min(1.0, math.exp(scores.mean())))
        for word, start, end, scores in zip(
            words, starts, ends, np.split(token_scores, first[1:]), strict=True
        )
    )


def best_path(
    log_probs: NDArray[np.floating], tokens: Sequence[int], blank: int = BLANK
) -> NDArray[np.int64]:
    """The most probable CTC path ``[T]`` of a text of L tokens: 2 k + 1 is token k, even numbers are blanks.

    Scores are kept for every block of about sqrt(T) frames, and moves for one block at a time, so that an
    hour needs little memory.
    """
    labels = np.full(2 * len(tokens) + 1, blank)
    labels[1::2] = tokens
    skips = np.zeros(len(labels), bool)  # from token k to k + 1 without a blank
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    scores = np.full(len(labels), -np.inf)
    scores[0] = 0.0
    size = max(1, math.isqrt(len(log_probs)))
    kept = []
    for frame in range(0, len(log_probs), size):
        kept.append(scores)
        for row in log_probs[frame : frame + size]:
            scores, _ = _step(scores, row[labels], skips)
    state = len(labels) - 1 - int(scores[-2] > scores[-1])
    path = np.empty(len(log_probs), np.int64)
    for block in reversed(range(len(kept))):
        scores, moves = kept[block], []
        for row in log_probs[block * size : (block + 1) * size]:
            scores, move = _step(scores, row[labels], skips)
            moves.append(move)
        for place in reversed(range(len(moves))):
            path[block * size + place] = state
            state -= int(moves[place][state])
    return path


def _step(
    scores: Floats, row: NDArray[np.floating], skips: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int8]]:
    """Scores of the states one frame later, and by how many states the best path moved to each."""
    choices = np.full((3, len(scores)), -np.inf)
    choices[0] = scores
    choices[1, 1:] = scores[:-1]
    choices[2, 2:] = np.where(skips[2:], scores[:-2], -np.inf)
    moves = choices.argmax(0)
    return np.take_along_axis(choices, moves[None], 0)[0] + row, moves.astype(np.int8)


# -- boundaries ----------------------------------------------------------------------------------------------

SHARE = 0.5
REACH = 4.0
HOP = SAMPLE_RATE // 100


def word_boundaries(
    onsets: Floats, offsets: Floats, frames: int, samples: NDArray[np.int16] | None
) -> tuple[Floats, Floats]:
    gaps = np.maximum(0, onsets[1:] - offsets[:-1])
    ends = np.r_[
        offsets[:-1] + np.where(gaps > 2 * REACH, REACH, SHARE * gaps), min(frames, offsets[-1] + REACH)
    ]
    starts = np.r_[
        max(0, onsets[0] - REACH), onsets[1:] - np.where(gaps > 2 * REACH, REACH, (1 - SHARE) * gaps)
    ]
    return starts / FRAME_RATE, ends / FRAME_RATE
