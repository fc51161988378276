"""Errors whose text is meant for the user: they name the file, the line and the fix."""

from __future__ import annotations


class DataError(ValueError):
    """A manifest, label file, dictionary, tokenizer or media file cannot be used as it is."""


class MediaError(DataError):
    """A video or audio file cannot be read (or written), or lacks the stream that is needed."""
