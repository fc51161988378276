"""Transcripts in text files, and cutting long recordings at pauses, as AV-HuBERT (Shi et al., 2022) does.

Text files are plain, or those of LRS2 and LRS3 with the times of the words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import composed, read_text

TEXT = "Text:"  # "Text:  HELLO WORLD" is the first line of the text files of LRS2 and LRS3
WORD_TABLE = ["WORD", "START", "END"]  # header of the lines with word times; a score may follow


@dataclass(frozen=True)
class TimedWord:
    """A word and its start and end, seconds from the start of the video."""

    text: str
    start: float
    end: float


JOINERS = "\u200c\u200d"
"""Invisible characters that belong to the spelling of Persian, Hindi and others."""


def normalised(text: str) -> str:
    """Lower case, single spaces, straight apostrophes, accents in one code point, nothing invisible."""
    visible = (
        char if char in JOINERS or unicodedata.category(char) not in ("Cc", "Cf") else _in_place_of(char)
        for char in text
    )
    return composed(" ".join("".join(visible).replace("\u2019", "'").split()).lower())


def _in_place_of(invisible: str) -> str:
    """A space for a line break, a tab or a zero-width space, nothing for a soft hyphen and the like."""
    return " " if invisible.isspace() or invisible == "\u200b" else ""


def read_transcript(path: Path) -> str | None:
    """Read a text file: lower case, single spaces; None without a file or without words.

    In LRS3's form the rest of the line "Text:" is the transcript, else all of the file.

    Raises:
        DataError: the file is not UTF-8, or holds more than words: subtitles, an alignment, metadata.
    """
    text = _read(path)
    if text is None:
        return None
    first, _, _ = text.partition("\n")
    if first.startswith(TEXT):
        return normalised(first[len(TEXT) :]) or None
    form = _form(text)
    if form:
        raise DataError(f"{path}: is a file {form}, not a transcript; write only the words that are said")
    return normalised(text) or None


CLOCK = r"\s*[\[(<]?\d{1,2}:\d\d(:\d\d)?\b"
DECIMALS = r".*(^|\s)\d*\.\d+[\s,;]+\d*\.\d+"  # CTM, STM, tables of words with times
LINES = {
    "with time stamps": re.compile(rf"\s*\d+[\s,;|]+\d+[\s,;|]+\S|{CLOCK}|{DECIMALS}"),
    "of metadata": re.compile(r"\s*(\||[\w .()/-]{1,30}(:|\s=)(\s|$))"),
}
"""What half of the lines of files begin with that hold more than words."""
STARTS = re.compile(
    r"\s*(WEBVTT|File type = |\[Script Info\]|<(\?xml|!|html|tt|sami)|\{\s*[\"\\}]|\[\s*[\"{])", re.IGNORECASE
)
"""Start of subtitles, TextGrid, XML, JSON, RTF."""

TAGS = re.compile(r"</\w+>|<\w+\s+\w+=")


def _form(text: str) -> str:
    """Which file a text is that holds more than words; empty for a transcript."""
    if STARTS.match(text) or "-->" in text or TAGS.search(text):
        return "of subtitles, XML or the like"
    lines = [line for line in text.split("\n") if line.strip()]
    for form, pattern in LINES.items():
        found = sum(bool(pattern.match(line)) for line in lines)
        if 2 * found >= len(lines) > 1 or re.match(DECIMALS, lines[0] if lines else ""):
            return form
    return ""


def require_transcript(path: Path) -> str:
    """The words after "Text:"; raises DataError when the file, this mark or the words are missing."""
    text = _read(path)
    if text is None:
        raise DataError(f"{path}: the transcript is missing; restore it or remove the video beside it")
    first, _, _ = text.partition("\n")
    if not first.startswith(TEXT):
        raise DataError(f"{path}, line 1: does not start with {TEXT!r}; restore the original file")
    words = normalised(first[len(TEXT) :])
    if not words:
        raise DataError(f"{path}, line 1: the transcript is empty; restore it or remove the video beside it")
    return words


def read_word_times(path: Path) -> list[TimedWord]:
    """The lines below "WORD START END ASDSCORE"; raises DataError when they are missing or not in order."""
    lines = (_read(path) or "").split("\n")
    header = next((number for number, line in enumerate(lines) if line.split()[:3] == WORD_TABLE), None)
    if header is None:
        raise DataError(
            f"{path}: has no lines below {' '.join(WORD_TABLE)!r}; they determine where long clips are cut"
        )
    words: list[TimedWord] = []
    for number, line in enumerate(lines[header + 1 :], start=header + 2):
        if not line.strip():
            break
        words.append(_word(path, number, line))
        if len(words) > 1 and words[-1].start < words[-2].start:
            raise DataError(f"{path}, line {number}: starts before the word above it; restore the file")
    if not words:
        raise DataError(f"{path}: lists no word below line {header + 1}; restore the file")
    return words


def _word(path: Path, number: int, line: str) -> TimedWord:
    columns = line.split()
    try:
        word = TimedWord(columns[0].lower(), float(columns[1]), float(columns[2]))
    except (IndexError, ValueError):
        word = TimedWord("", math.nan, math.nan)
    if not 0 <= word.start <= word.end:
        raise DataError(f"{path}, line {number}: is not a word with its start and end in seconds: {line!r}")
    return word


def _read(path: Path) -> str | None:
    return read_text(path, "make it readable") if path.exists() else None


LONGEST = 15.0  # seconds; longer recordings are cut
PAUSE = 0.4  # seconds between two words: where to cut
ROUNDING = 1e-6  # the files have two decimals, which binary numbers do not represent exactly
MARGIN = PAUSE / 2  # seconds kept before the first and after the last word of a piece


@dataclass(frozen=True)
class Passage:
    """Part of a recording: start and end in seconds, and its transcript."""

    span: tuple[float, float]
    transcript: str


def cut_at_pauses(words: Sequence[TimedWord], longest: float = LONGEST) -> list[Passage]:
    """Cut a recording into pieces of at most ``longest`` seconds, each as long as possible.

    Cuts lie in pauses of more than 0.4 s. Where ``longest`` seconds hold none, the longest pause is taken; a
    longer single word stays one piece. Silence more than 0.2 s away from any word is left out. Together the
    pieces hold every word once.
    """
    pieces = []
    first = 0
    while first < len(words):
        last = _last_word(words, first, longest)
        text = " ".join(word.text for word in words[first : last + 1])
        pieces.append(Passage((_start(words, first), _end(words, last)), text))
        first = last + 1
    return pieces


def _last_word(words: Sequence[TimedWord], first: int, longest: float) -> int:
    """Index of the word after which the piece that begins with ``first`` ends."""
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


def _pause(words: Sequence[TimedWord], index: int) -> float:
    """Seconds between word ``index`` and the next one."""
    return max(0.0, words[index + 1].start - words[index].end)


def _start(words: Sequence[TimedWord], index: int) -> float:
    if index == 0:
        return max(0.0, words[0].start - MARGIN)
    return words[index].start - min(MARGIN, _pause(words, index - 1) / 2)


def _end(words: Sequence[TimedWord], index: int) -> float:
    if index == len(words) - 1:
        return words[index].end + MARGIN
    return words[index].end + min(MARGIN, _pause(words, index) / 2)
