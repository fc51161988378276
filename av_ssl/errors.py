"""Errors whose text is meant for the user: they name the file, the line and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class DataError(ValueError):
    """A manifest, label file, dictionary, tokenizer or media file cannot be used as it is."""


class MediaError(DataError):
    """A video or audio file cannot be read (or written), or lacks the stream that is needed."""


def optional_package(name: str, extra: str, option: str = "") -> Any:
    """A package, or that of a module, which only the extra ``extra`` of this package installs.

    Raises DataError, which begins with the command's ``option`` that needs it.
    """
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise DataError(f"{option}{error.name} is not installed; pip install 'av_ssl[{extra}]'") from error


@contextmanager
def explained(problem: str, *packages: str) -> Iterator[None]:
    """Turn errors of the system and of packages, which have no common class, into ``problem`` (reason)."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in packages:
            raise
        raise DataError(f"{problem} ({' '.join(str(error).split())})") from error
