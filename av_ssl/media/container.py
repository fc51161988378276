"""Opening media files with FFmpeg's libraries (PyAV); errors name the file and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer

from av_ssl.errors import DataError, MediaError

BOX_HEADER, LONG_BOX_HEADER = 8, 16  # bytes before each part of an mp4 file (ISO 14496-12)


class MissingStreamError(MediaError):
    """A file lacks a stream that is needed; ``kind`` is "video" or "audio"."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path}: has no {kind} stream; replace or remove the file")
        self.kind = kind


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a file; every error of FFmpeg, now or while decoding, becomes a MediaError."""
    check_complete(path)
    try:
        # Absolute, or FFmpeg would take a name such as "http:a.mp4" for an address.
        with av.open(str(path.absolute()), "r") as container:
            yield container
    except DataError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path}: cannot be decoded ({reason}); replace or remove the file") from error


def check_complete(path: Path) -> None:
    """Raise MediaError for an mp4 or mov file that is shorter than its boxes state.

    FFmpeg notices only a cut within a frame: a cut in the audio would pass for a shorter clip.
    """
    try:
        size = path.stat().st_size
        if not size and path.is_file():
            raise MediaError(f"{path}: is empty (0 bytes); replace or remove the file")
        with path.open("rb") as file:
            start = 0
            while start + BOX_HEADER <= size:
                file.seek(start)
                header = file.read(LONG_BOX_HEADER)
                if start == 0 and header[4:8] != b"ftyp":
                    return
                length = int.from_bytes(header[:4], "big")
                if length == 1:  # the length follows, in 8 bytes
                    length = int.from_bytes(header[BOX_HEADER:], "big")
                if length < BOX_HEADER:  # 0: up to the end of the file; others are invalid
                    return
                start += length
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if start > size:
        raise MediaError(f"{path}: is truncated by {start - size} bytes; replace or remove the file")


def stated_seconds(path: Path) -> float | None:
    """Length as the file states it; None where it states none. Raises MediaError."""
    with open_media(path) as container:
        return None if container.duration is None else container.duration / av.time_base


def start_seconds(container: InputContainer) -> float:
    """Time stamp at which the earliest video or audio stream starts: time zero of the clip."""
    starts = [
        stream.start_time * float(stream.time_base)
        for stream in container.streams
        if stream.type in ("video", "audio") and stream.start_time is not None and stream.time_base
    ]
    return min(starts, default=0.0)
