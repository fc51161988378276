"""Files of a transcript: plain text, subtitles (SubRip, WebVTT), a table, and JSON as whisperX writes it."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.transcription.transcript import Segment, Transcript, Word

LINE, LINES = 42, 2
"""Characters of a line of subtitles, and lines at a time: what broadcasters use."""
PAUSE, LONGEST, SHORTEST = 1.0, 7.0, 0.001
"""Seconds: of silence that ends a subtitle; of a subtitle at most, and at least (WebVTT: more than 0)."""


def txt(transcript: Transcript) -> str:
    """The text of each segment on a line."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments if segment.text)


def srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(transcript), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """WebVTT subtitles."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{escape(cue.text, quote=False)}\n\n"
        for cue in cues(transcript)
    )


def tsv(transcript: Transcript) -> str:
    """Columns start, end (ms) and text, as whisper and whisperX write them."""
    rows = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{' '.join(segment.text.split())}\n"
        for segment in transcript.segments
        if segment.text
    )
    return "start\tend\ttext\n" + "".join(rows)


def as_json(transcript: Transcript) -> str:
    """The keys of whisperX: ``segments``, ``word_segments`` and ``language``, which is unknown here.

    Segments have ``start``, ``end``, ``text`` and ``words``, words have ``word``, ``start``, ``end`` and
    ``score``. Keys of our own are a segment's ``confidence`` and ``modalities``, and ``notes``.
    """
    segments = [
        {
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "words": list(map(vars, segment.words)),
            "confidence": segment.confidence,
            "modalities": segment.modalities,
        }
        for segment in transcript.segments
    ]
    words = [vars(word) for segment in transcript.segments for word in segment.words]
    content = {"segments": segments, "word_segments": words, "language": None, "notes": transcript.notes}
    return json.dumps(rounded(content), ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "json": as_json,
}
"""Suffixes of the files, and what writes them."""
ALL = "all"


def transcript_files(stem: Path, formats: tuple[str, ...]) -> list[Path]:
    """``{stem}.{format}`` for each of the formats."""
    return [stem.with_name(f"{stem.name}.{name}") for name in formats]


def keep_own_files(recording: Path, stem: Path, formats: tuple[str, ...], all_faces: bool = False) -> None:
    """Raise DataError where a file of the transcript is there already, in the recording's own folder.

    It may be the user's own transcript, which data preparation reads there. ``all_faces``: one a face is
    to be written.
    """
    files = transcript_files(stem, formats)
    if all_faces:
        names = glob.escape(f"{stem.name}.face")
        files = [file for name in formats for file in stem.parent.glob(f"{names}[0-9]*.{name}")]
    for file in files:
        if file.exists() and file.parent.resolve() == recording.parent.resolve():
            raise DataError(
                f"{file}: is there already, beside {recording.name}, and may be your own transcript: move it "
                "away, or choose another --out"
            )


def write_transcript(transcript: Transcript, stem: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write ``transcript_files``; returns them."""
    files = transcript_files(stem, formats)
    for name, file in zip(formats, files, strict=True):
        write_atomically(file, FORMATS[name](transcript).encode())
    return files


def rounded(value: Any) -> Any:
    """Nested lists and dicts with their numbers rounded: a millisecond, a thousandth."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


# -- subtitles -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cue:
    """Up to `LINES` lines that are shown from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def cues(transcript: Transcript) -> Iterator[Cue]:
    """Subtitles of all segments, in order; none starts before the last one has ended."""
    shown = 0.0
    for segment in transcript.segments:
        for cue in _cues(segment):
            start = max(shown, cue.start)
            shown = max(cue.end, start + SHORTEST)
            yield replace(cue, start=start, end=shown)


def _cues(segment: Segment) -> Iterator[Cue]:
    """Cues with as many words as fit, none across a long pause."""
    words: list[Word] = []
    for word in _timed(segment):
        if words and not _fits(words, word):
            yield _cue(words)
            words = []
        words.append(word)
    if words:
        yield _cue(words)


def _timed(segment: Segment) -> Iterator[Word]:
    """The words, without spaces cut to what a subtitle holds."""
    for word in segment.words or _spread(segment):
        wanted = max(ceil(len(word.word) / LINE), ceil((word.end - word.start) / LONGEST), 1)
        count = min(wanted, len(word.word))  # a letter at least
        places = [round(number * len(word.word) / count) for number in range(count + 1)]
        times = [word.start + number * (word.end - word.start) / count for number in range(count + 1)]
        for (first, last), (start, end) in zip(pairwise(places), pairwise(times), strict=True):
            yield replace(word, word=word.word[first:last], start=start, end=end)


def _spread(segment: Segment) -> tuple[Word, ...]:
    """Words without times: they share the time of the segment by their letters."""
    words = segment.text.split()
    ends = list(accumulate(len(word) for word in words))
    second = (segment.end - segment.start) / max(1, sum(map(len, words)))
    return tuple(
        Word(
            word,
            segment.start + (end - len(word)) * second,
            segment.start + end * second,
            segment.confidence,
        )
        for word, end in zip(words, ends, strict=True)
    )


def _fits(words: list[Word], word: Word) -> bool:
    together = [*words, word]
    return (
        len(_lines(together)) <= LINES
        and word.start - words[-1].end < PAUSE
        and word.end - words[0].start <= LONGEST
    )


def _lines(words: list[Word]) -> list[str]:
    text = " ".join(word.word for word in words)
    return wrap(text, LINE, break_long_words=False, break_on_hyphens=False)


def _cue(words: list[Word]) -> Cue:
    return Cue(words[0].start, words[-1].end, "\n".join(_lines(words)))


def _clock(seconds: float, point: str) -> str:
    """``HH:MM:SS.mmm``, with this decimal point."""
    left, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, left = divmod(left, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{left:02d}{point}{milliseconds:03d}"
