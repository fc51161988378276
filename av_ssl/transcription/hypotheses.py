"""What a recogniser understood, and the file that holds it: `{subset}.hyp.tsv`.

A line a clip, columns separated by tabs, their names on the first line:

    id    confidence    words    seconds    text
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
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
        text: words; empty where nothing was understood.
    """

    id: str
    confidence: float
    frames: int
    text: str

    @property
    def words(self) -> list[str]:
        """Words of the text."""
        return self.text.split()

    @property
    def row(self) -> str:
        """Its line of the file."""
        seconds = self.frames / FRAME_RATE
        text = " ".join(self.words)
        return f"{self.id}\t{self.confidence:.4f}\t{len(self.words)}\t{seconds:.2f}\t{text}\n"


def confidence(score: float, tokens: int) -> float:
    """Geometric mean of a hypothesis' probability over its tokens, from 0 to 1 [ours].

    `exp(score / tokens)`, where `score` is the log-probability of the whole: the end of the sentence included
    where a decoder predicts it, summed over all alignments by CTC.  The mean makes clips of different length
    comparable.  Different models, or ways of decoding, are not: an attention decoder rates its words given
    the ones before, CTC the path through all frames.  An empty hypothesis counts as one token.
    """
    return math.exp(min(0.0, score / max(1, tokens)))


def hypotheses_text(hypotheses: Iterable[Hypothesis]) -> str:
    """The lines of a file without its header."""
    return "".join(hypothesis.row for hypothesis in hypotheses)


def read_hypotheses(path: Path) -> list[Hypothesis]:
    """Read `{subset}.hyp.tsv`; raises DataError naming file and line when it is missing or malformed."""
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); av-ssl transcribe writes it, name its --out folder"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); run av-ssl transcribe again") from error
    if header != HEADER.rstrip("\n"):
        raise DataError(
            f"{path}, line 1: is not {' '.join(COLUMNS)!r}; needed is a file of av-ssl transcribe"
        )
    hypotheses: dict[str, Hypothesis] = {}
    for number, line in enumerate(lines, start=2):
        if not line and number == len(lines) + 1:  # behind the last line's end
            continue
        hypothesis = _parse(path, number, line)
        if hypothesis.id in hypotheses:
            raise DataError(
                f"{path}, line {number}: id {hypothesis.id!r} stands there a second time; keep one of the two"
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
