"""Times of the words of a known text, by forced alignment with the outputs of a CTC head.

CTC says where a word is, not where it begins: its tokens are probable in a few frames each. Boundaries are
made of these by `word_boundaries`, a rule of our own [ours]. This module needs numpy alone, so that models in
another format can use it without torch.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.io import composed
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
            composed("".join(symbols[place] for place in group).replace(WORD_START, "")),
            tuple(ids[place] for place in group),
        )
        for group in groups
    ]
    return [each for each in spelled if each.word]


def spell_text(
    text: str, encode: Callable[[str], Sequence[str]], indices: Mapping[str, int]
) -> list[list[Spelling]]:
    """The words of each line of a known text; lines without words are left out.

    Punctuation that the dictionary lacks stays in a word, but has no token.

    Args:
        text: words separated by spaces.
        encode: symbols of a word.
        indices: ids of the dictionary's symbols.

    Raises:
        DataError: the text is empty, or has words that the dictionary lacks.
    """
    lines: list[list[Spelling]] = []
    unknown: dict[str, None] = {}
    for line in text.splitlines():
        lines.append([])
        for word in line.split():
            written = composed(word).replace("\u2019", "'")
            spoken = "".join(
                each for each in written if each == "'" or unicodedata.category(each)[0] in "LMN"
            )
            spellings = (encode(each) for each in (word, written, spoken))
            known = next((each for each in spellings if all(symbol in indices for symbol in each)), None)
            if known is None:
                unknown[word] = None
            elif known:
                lines[-1].append(Spelling(word, tuple(indices[symbol] for symbol in known)))
    if unknown:
        named = ", ".join(map(repr, islice(unknown, NAMED))) + (", ..." if len(unknown) > NAMED else "")
        raise DataError(
            f"the model's dictionary cannot spell {named}; write the text as the model's training text was, "
            "numbers as words"
        )
    if not any(lines):
        raise DataError("the text holds no words")
    return [line for line in lines if line]


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest frames in which CTC can emit the tokens: equal neighbours need a blank between them."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


# -- the alignment -------------------------------------------------------------------------------------------


def align(
    log_probs: NDArray[np.floating],
    words: Sequence[Spelling],
    levels: NDArray[np.float32] | None = None,
    scores: Floats | None = None,
    blank: int = BLANK,
) -> tuple[Word, ...]:
    """Times of words in a recording.

    Args:
        log_probs: log-probabilities ``[T, V]`` at 25 Hz of a CTC head.
        words: the text, in order.
        levels: loudness of the sound, see `loudness`: words begin and end at its pauses. None: unknown.
        scores: log-probability of each token; None: the mean of ``log_probs`` over the token's frames.
        blank: id of CTC's blank.

    Returns:
        The words. Each lasts at least a frame, and ends before the next one starts.
    """
    tokens = [token for word in words for token in word.tokens]
    if not tokens:
        return ()
    # A decoder may say more tokens than there are frames, which then count several times.
    repeats = -(-frames_needed(tokens) // len(log_probs))
    rate = FRAME_RATE * repeats
    log_probs = np.repeat(log_probs, repeats, axis=0)
    states = best_path(log_probs, tokens, blank)
    emitting = np.flatnonzero(states % 2)
    order = states[emitting] // 2
    if scores is None:
        emitted = np.asarray(log_probs, np.float64)[emitting, np.take(tokens, order)]
        scores = np.bincount(order, emitted, len(tokens)) / np.bincount(order, minlength=len(tokens))
    last = np.cumsum([len(word.tokens) for word in words]) - 1
    first = np.r_[0, last[:-1] + 1]
    onsets = emitting[np.searchsorted(order, first)]
    offsets = emitting[np.searchsorted(order, last, side="right") - 1] + 1
    starts, ends = word_boundaries(onsets / rate, offsets / rate, len(log_probs) / rate, levels, 1 / rate)
    return tuple(
        Word(word.word, round(float(start), 3), round(float(end), 3), min(1.0, math.exp(own.mean())))
        for word, start, end, own in zip(words, starts, ends, np.split(scores, first[1:]), strict=True)
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

LEVEL_RATE = 100
"""Levels a second."""
SHARE = 0.75
"""Where the boundary of two words without a pause is: 0 at the last frame of the first one's tokens, 1 at the
first frame of the second one's. CTC's tokens are early in their words."""
BEFORE, AFTER = 0.3, 0.5
"""Seconds before the first and after the last word's tokens within which a pause is looked for."""
GUESS_BEFORE, GUESS_AFTER = 0.08, 0.24
"""Seconds from a word's tokens to its boundary at a pause that cannot be heard."""
SHORTEST_PAUSE, SHORTEST_INNER_PAUSE = 0.06, 0.15
"""Seconds; between two words closed lips are silent, too."""
SOFT = 0.03
"""Seconds of a word at a pause that are too soft to be heard, as of lips that close before a plosive."""
PRE_EMPHASIS = 0.97
QUIET = 0.3
"""Pauses are softer than this, from 0 (the quietest moments of the recording) to 1 (its loudest)."""
LEAST_RANGE = 10.0
"""dB between the two: with less, noise hides the pauses."""


def loudness(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Level ``[n]`` in dB of each 10 ms of samples ``[N]`` at 16 kHz, the mean over 30 ms.

    High frequencies are amplified first, as in filterbanks: rooms and machines hum below the voice.
    """
    hop = SAMPLE_RATE // LEVEL_RATE
    wave = np.asarray(samples, np.float32)
    wave = np.r_[wave[:1], wave[1:] - PRE_EMPHASIS * wave[:-1]]
    blocks = wave[: len(wave) // hop * hop].reshape(-1, hop)
    if not len(blocks):
        return np.zeros(0, np.float32)
    levels = np.pad(10 * np.log10(np.mean(blocks**2, axis=1) + 1), 1, mode="edge")
    mean: NDArray[np.float32] = (levels[:-2] + levels[1:-1] + levels[2:]) / 3
    return mean


def word_boundaries(
    onsets: Floats,
    offsets: Floats,
    length: float,
    levels: NDArray[np.float32] | None = None,
    frame: float = 1 / FRAME_RATE,
) -> tuple[Floats, Floats]:
    """Starts and ends ``[W]`` of words, in seconds, at least a ``frame`` apart.

    A word ends and the next one starts at the longest pause that is heard between their tokens, or without
    one at one place between them. If nothing is heard, a pause is assumed where that place is far from both.
    The constants above were chosen on 100 clips of one speaker of GRID.

    Args:
        onsets, offsets: seconds ``[W]`` at which the frames of a word's tokens begin and end.
        length: of the recording, in seconds.
        levels: see `loudness`; None: nothing is heard.
    """
    quiet = np.zeros((0, 2)) if levels is None else pauses(levels)
    inner = quiet[quiet[:, 1] - quiet[:, 0] >= SHORTEST_INNER_PAUSE]
    starts, ends = np.array(onsets), np.array(offsets)
    starts[0] = _longest(quiet, onsets[0] - BEFORE, onsets[0], (0.0, onsets[0] - GUESS_BEFORE))[1]
    ends[-1] = _longest(quiet, offsets[-1], offsets[-1] + AFTER, (offsets[-1] + GUESS_AFTER, 0.0))[0]
    for word, (end, start) in enumerate(zip(offsets[:-1], onsets[1:], strict=True)):
        boundary = end + SHARE * (start - end)
        otherwise = boundary, boundary
        if not len(quiet):
            otherwise = min(end + GUESS_AFTER, boundary), max(start - GUESS_BEFORE, boundary)
        ends[word], starts[word + 1] = _longest(inner, end, start, otherwise)
    # A pause that covers all of a word must not take it away: its tokens have a frame at least.
    places = frame * np.arange(len(starts))
    starts = np.maximum.accumulate(np.clip(starts, 0.0, offsets - frame) - places) + places
    return starts, np.clip(ends, starts + frame, np.r_[starts[1:], length])


def pauses(levels: NDArray[np.float32]) -> Floats:
    """Start and end ``[P, 2]`` of each pause, in seconds; see `loudness`."""
    heard = levels[levels > 0]  # digital silence, as before sound that starts late, is no measure of the room
    softest, loudest = np.percentile(heard, (5, 95)) if len(heard) else (0.0, 0.0)
    if loudest - softest < LEAST_RANGE:
        return np.zeros((0, 2))
    quiet = np.r_[0, levels < softest + QUIET * (loudest - softest), 0]
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8))).reshape(-1, 2) / LEVEL_RATE
    found: Floats = edges[edges[:, 1] - edges[:, 0] >= SHORTEST_PAUSE]
    return found


def _longest(quiet: Floats, low: float, high: float, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Start and end of the pause with the longest part between two times; ``otherwise`` if there is none."""
    near = quiet[np.searchsorted(quiet[:, 1], low) : np.searchsorted(quiet[:, 0], high)]
    if not len(near):
        return otherwise
    start, end = near[(np.minimum(near[:, 1], high) - np.maximum(near[:, 0], low)).argmax()]
    soft = min(SOFT, (end - start) / 2)
    return float(start + soft), float(end - soft)
