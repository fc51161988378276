"""Cutting long recordings into clips where nobody speaks, as AV-HuBERT (Shi et al., 2022) does for LRS3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from av_ssl.corpora.transcripts import Word

LONGEST = 15.0  # seconds; longer recordings are cut
PAUSE = 0.4  # seconds between two words that make a good place to cut
ROUNDING = 1e-6  # the files have two decimals, which sums of binary numbers miss
MARGIN = PAUSE / 2  # seconds kept before the first and after the last word of a piece


@dataclass(frozen=True)
class Piece:
    """Part of a recording: start and end in seconds, and what is said."""

    span: tuple[float, float]
    transcript: str


def cut_at_pauses(words: Sequence[Word], longest: float = LONGEST) -> list[Piece]:
    """Pieces of at most `longest` seconds, each as long as possible; together they hold every word once.

    Cuts lie in pauses of more than 0.4 s. Where `longest` seconds hold none, the longest pause there is
    taken; a single word that is longer stays whole. Silence farther than 0.2 s from any word is left out.
    """
    pieces = []
    first = 0
    while first < len(words):
        last = _last_word(words, first, longest)
        text = " ".join(word.text for word in words[first : last + 1])
        pieces.append(Piece((_start(words, first), _end(words, last)), text))
        first = last + 1
    return pieces


def _last_word(words: Sequence[Word], first: int, longest: float) -> int:
    """Index of the word after which the piece that begins with `first` ends."""
    limit = _start(words, first) + longest
    fitting = [first]
    for index in range(first + 1, len(words)):
        if words[index].end > limit:
            break
        if _end(words, index) <= limit:
            fitting.append(index)
    if fitting[-1] == len(words) - 1:
        return fitting[-1]
    after_pause = [index for index in fitting if _pause(words, index) > PAUSE + ROUNDING]
    if after_pause:
        return after_pause[-1]
    return max(fitting, key=lambda index: (_pause(words, index), index))


def _pause(words: Sequence[Word], index: int) -> float:
    """Seconds between word `index` and the next one."""
    return max(0.0, words[index + 1].start - words[index].end)


def _start(words: Sequence[Word], index: int) -> float:
    if index == 0:
        return max(0.0, words[0].start - MARGIN)
    return words[index].start - min(MARGIN, _pause(words, index - 1) / 2)


def _end(words: Sequence[Word], index: int) -> float:
    if index == len(words) - 1:
        return words[index].end + MARGIN
    return words[index].end + min(MARGIN, _pause(words, index) / 2)
