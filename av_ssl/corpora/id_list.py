"""Lists of clip ids in text files, one a line."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from av_ssl.corpora.corpus import Corpus
from av_ssl.errors import DataError


def read_ids(path: Path, corpus: Corpus) -> dict[str, int]:
    """Line number of every id; the corpus says how a line is written.

    Raises DataError when the file is missing, empty or not UTF-8, or when an id comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); it must list clip ids") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); convert it") from error
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = corpus.clip_id(line)
        if name in ids:
            raise DataError(
                f"{path}, line {number}: {name} is also on line {ids[name]}; remove one of the two"
            )
        ids[name] = number
    if not ids:
        raise DataError(f"{path}: lists no clip; write one id a line, e.g. as in clips.tsv")
    return ids


def require_known(path: Path, ids: dict[str, int], clips: Container[str]) -> None:
    """Raise DataError, naming the line, for the first id that is no clip of the corpus."""
    for name, number in ids.items():
        if name not in clips:
            raise DataError(
                f"{path}, line {number}: the corpus has no clip {name}; correct or remove the line"
            )
