"""Transcripts and their file, `{subset}.hyp.tsv`.

A line a clip, columns separated by tabs, their names on the first line:

    id    confidence    words    seconds    text
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import read_text
from av_ssl.layout import FRAME_RATE

COLUMNS = ("id", "confidence", "words", "seconds", "text")
HEADER = "\t".join(COLUMNS) + "\n"


@dataclass(frozen=True)
class Hypothesis:
    """The transcript of one clip.

    Args:
        id: of the clip.
        confidence: from 0 to 1, see `confidence`.
        frames: length of the clip by its manifest, at 25 Hz.
        text: empty if no word was recognised.
    """

    id: str
    confidence: float
    frames: int
    text: str

    @property
    def words(self) -> list[str]:
        return self.text.split()


def confidence(score: float, tokens: int) -> float:
    """Geometric mean of a hypothesis' probability over its tokens, from 0 to 1 [ours].

    ``exp(score / tokens)``, where ``score`` is the log-probability of the entire output: with the end of the
    sentence if a decoder predicts it, summed over all alignments by CTC. The mean makes clips of different
    length comparable. Models and decoding modes are not comparable: an attention decoder rates each word
    given those before it, CTC rates the path through all frames. An empty hypothesis counts as one token.
    """
    return math.exp(min(0.0, score / max(1, tokens)))


def hypothesis_row(hypothesis: Hypothesis) -> str:
    seconds = hypothesis.frames / FRAME_RATE
    words = hypothesis.words
    return f"{hypothesis.id}\t{hypothesis.confidence:.4f}\t{len(words)}\t{seconds:.2f}\t{' '.join(words)}\n"


def hypotheses_text(hypotheses: Iterable[Hypothesis]) -> str:
    """The lines of a file, without its first."""
    return "".join(map(hypothesis_row, hypotheses))


def read_hypotheses(path: Path) -> list[Hypothesis]:
    """Read `{subset}.hyp.tsv`; raises DataError naming file and line when it is missing or malformed."""
    header, *lines = read_text(path, "av-ssl transcribe writes it, name its --out folder").split("\n")
    if header != HEADER.rstrip("\n"):
        raise DataError(
            f"{path}, line 1: is not {' '.join(COLUMNS)!r}; name a file that av-ssl transcribe wrote"
        )
    hypotheses: dict[str, Hypothesis] = {}
    for number, line in enumerate(lines, start=2):
        if not line and number == len(lines) + 1:  # after the last line's end
            continue
        hypothesis = _parse(path, number, line)
        if hypothesis.id in hypotheses:
            raise DataError(
                f"{path}, line {number}: id {hypothesis.id!r} occurs twice; keep one of the two lines"
            )
        hypotheses[hypothesis.id] = hypothesis
    return list(hypotheses.values())


def _parse(path: Path, number: int, line: str) -> Hypothesis:
    items = line.split("\t")
    try:
        id, rating, _, seconds, text = items
        value, frames = float(rating), round(float(seconds) * FRAME_RATE)
    except ValueError:
        raise DataError(
            f"{path}, line {number}: needed are {len(COLUMNS)} columns, tab-separated: {', '.join(COLUMNS)}; "
            "confidence and seconds are numbers"
        ) from None
    if not 0 <= value <= 1:
        raise DataError(f"{path}, line {number}: confidence is {rating}; it must be from 0 to 1")
    return Hypothesis(id, value, frames, text)
