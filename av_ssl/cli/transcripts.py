"""Transcripts that lie beside the videos."""

from __future__ import annotations

from pathlib import Path

from av_ssl.errors import DataError

LRS3_MARK = "Text:"  # "Text:  HELLO WORLD" is the first line of the text files of LRS3


def read_transcript(path: Path) -> str | None:
    """Lower-case words of the text file, single spaces between; None when there is no file or no word in it.

    In the form of LRS3 the rest of the line "Text:" counts, else the whole text. Raises DataError for other
    encodings than UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    first, _, _ = text.partition("\n")
    if first.startswith(LRS3_MARK):
        text = first[len(LRS3_MARK) :]
    return " ".join(text.split()).lower() or None
