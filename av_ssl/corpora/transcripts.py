"""Transcripts in text files: plain ones, and those of LRS2 and LRS3 with the times of their words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError

TEXT = "Text:"  # "Text:  HELLO WORLD" is the first line of the text files of LRS2 and LRS3
WORD_TABLE = ["WORD", "START", "END"]  # header of the lines with word times; a score may follow


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken, seconds from the start of the video."""

    text: str
    start: float
    end: float


def normalised(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.split()).lower()


def read_transcript(path: Path) -> str | None:
    """Lower-case words of the text file, single spaces between; None when there is no file or no word in it.

    In the form of LRS3 the rest of the line "Text:" counts, else the whole text. Raises DataError for other
    encodings than UTF-8.
    """
    text = _read(path)
    if text is None:
        return None
    first, _, _ = text.partition("\n")
    return normalised(first[len(TEXT) :] if first.startswith(TEXT) else text) or None


def require_transcript(path: Path) -> str:
    """The words after "Text:"; raises DataError when the file, the mark or the words are missing."""
    text = _read(path)
    if text is None:
        raise DataError(f"{path}: the transcript is missing; restore it or remove the video beside it")
    first, _, _ = text.partition("\n")
    if not first.startswith(TEXT):
        raise DataError(f"{path}, line 1: does not start with {TEXT!r}; restore the file as it was shipped")
    words = normalised(first[len(TEXT) :])
    if not words:
        raise DataError(f"{path}, line 1: the transcript is empty; restore it or remove the video beside it")
    return words


def read_word_times(path: Path) -> list[Word]:
    """The lines below "WORD START END ASDSCORE"; raises DataError when they are missing or not in order."""
    lines = (_read(path) or "").split("\n")
    header = next((number for number, line in enumerate(lines) if line.split()[:3] == WORD_TABLE), None)
    if header is None:
        raise DataError(
            f"{path}: has no lines below {' '.join(WORD_TABLE)!r}; they say where long clips may be cut"
        )
    words: list[Word] = []
    for number, line in enumerate(lines[header + 1 :], start=header + 2):
        if not line.strip():
            break
        words.append(_word(path, number, line))
        if len(words) > 1 and words[-1].start < words[-2].start:
            raise DataError(f"{path}, line {number}: starts before the word above it; restore the file")
    if not words:
        raise DataError(f"{path}: lists no word below line {header + 1}; restore the file")
    return words


def _word(path: Path, number: int, line: str) -> Word:
    columns = line.split()
    try:
        word = Word(columns[0].lower(), float(columns[1]), float(columns[2]))
    except (IndexError, ValueError):
        word = Word("", math.nan, math.nan)
    if not 0 <= word.start <= word.end:
        raise DataError(f"{path}, line {number}: is not a word with its start and end in seconds: {line!r}")
    return word


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
