"""Opening media files with FFmpeg's libraries (PyAV), with errors that name the file and the mend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer

from av_ssl.errors import DataError, MediaError


class MissingStreamError(MediaError):
    """A file lacks a stream that is needed; `kind` is "video" or "audio"."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path}: has no {kind} stream; replace or remove the file")
        self.kind = kind


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """The opened file; whatever FFmpeg complains about, now or while decoding, becomes a MediaError."""
    try:
        # Absolute, or FFmpeg would take a name such as "http:a.mp4" for an address.
        with av.open(str(path.absolute()), "r") as container:
            yield container
    except DataError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: cannot be decoded ({reason}); replace the file by a whole copy, or remove it"
        ) from error


def start_seconds(container: InputContainer) -> float:
    """Time stamp at which the earliest video or audio stream starts: time zero of the clip."""
    starts = [
        stream.start_time * float(stream.time_base)
        for stream in container.streams
        if stream.type in ("video", "audio") and stream.start_time is not None and stream.time_base
    ]
    return min(starts, default=0.0)
