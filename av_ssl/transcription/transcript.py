"""What recognising a recording gives: words with times, segments, and the recognisers that make them.

This module imports neither torch nor fairseq, so that a recogniser in another format needs neither.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from av_ssl.errors import DataError

if TYPE_CHECKING:
    from av_ssl.media.recording import Part


@dataclass(frozen=True)
class Word:
    """A word with its times.

    Args:
        word: as the recogniser's dictionary spells it.
        start, end: seconds from the start of the recording (in a `Recognition`: of its part).
        score: from 0 to 1, the geometric mean of the probabilities of its tokens.
    """

    word: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording with its text.

    Args:
        start, end: seconds from the start of the recording.
        text: words separated by spaces.
        words: of the text, in order; empty unless word times were asked for.
        confidence: from 0 to 1, see `av_ssl.transcription.hypotheses.confidence`.
        modalities: `audio`, `video` or `av`: the streams that the recogniser received.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float
    modalities: str


@dataclass(frozen=True)
class Transcript:
    """Segments of a recording in order; ``notes`` say what went otherwise than asked, a line each."""

    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def confidence(self) -> float:
        """From 0 to 1, the geometric mean of those of the segments by their words; 0 without segments."""
        words = [max(1, len(segment.text.split())) for segment in self.segments]
        logs = [math.log(max(segment.confidence, sys.float_info.min)) for segment in self.segments]
        weighted = sum(count * log for count, log in zip(words, logs, strict=True))
        return math.exp(weighted / sum(words)) if words else 0.0


@dataclass(frozen=True)
class Recognition:
    """What a recogniser found in one part of a recording; times count from the start of the part.

    ``words`` is empty unless word times were asked for.
    """

    text: str
    confidence: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search; names and meaning are fairseq-generate's.

    Args:
        beam: hypotheses kept; 1 is greedy.
        lenpen: scores of attention decoders are divided by the length to this power; above 1 favours longer
            hypotheses.
        max_len_a, max_len_b: at most ``max_len_a * frames + max_len_b`` tokens.
    """

    beam: int = 20
    lenpen: float = 1.0
    max_len_a: float = 1.0
    max_len_b: int = 10

    def __post_init__(self) -> None:
        if not (isinstance(self.beam, int) and self.beam >= 1):
            raise DataError(f"beam is {self.beam!r}; give a whole number from 1")


class SpeechRecogniser(Protocol):
    """Anything that turns parts of a recording into text."""

    @property
    def stream_choices(self) -> Sequence[tuple[str, ...]]:
        """Sets of streams that it accepts, such as `("audio", "video")`, the preferred one first."""
        ...

    @property
    def crop_side(self) -> int:
        """Side of the mouth crops of its parts, in pixels."""
        ...

    def recognise(
        self, parts: Sequence[Part], streams: tuple[str, ...], word_times: bool = False
    ) -> list[Recognition]:
        """Recognise parts that all have these streams; one `Recognition` per part, in their order."""
        ...
