"""Opening media files with FFmpeg's libraries (PyAV); errors name the file and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from av_ssl.errors import DataError, MediaError
from av_ssl.io import POINTER, is_pointer, wav_fault

BOX_HEADER, LONG_BOX_HEADER = 8, 16  # bytes before each part of an mp4 file (ISO 14496-12)
# Parts that the standards name. Phones append bytes of their own behind the last one.
BOXES = frozenset([
    b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"meta", b"uuid", b"free", b"skip", b"wide", b"udta",
    b"sidx", b"ssix", b"styp", b"pdin", b"prft", b"emsg", b"pnot", b"PICT",
])  # fmt: skip
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # ids in Matroska and WebM files
STREAMED = 0x7FFF0000  # bytes: a RIFF file that states more was written to a pipe
LARGEST_STEP_BACK = 0.5  # seconds: time stamps that go back further belong to another recording
COVER = Disposition.attached_pic | Disposition.timed_thumbnails
STILL_CODECS = frozenset(
    ["mjpeg", "mjpegb", "png", "bmp", "gif", "tiff", "webp", "jpegls", "jpegxl", "jpeg2000"]
)

Span = tuple[float, float]  # start and end within a file, seconds


class MissingStreamError(MediaError):
    """A file lacks a stream that is needed; ``kind`` is "video" or "audio"."""

    def __init__(self, path: Path, kind: str, problem: str = "") -> None:
        super().__init__(f"{path}: {problem or f'has no {kind} stream'}; replace or remove the file")
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
    """Raise MediaError for a git LFS pointer, and for a file shorter than it states itself.

    FFmpeg notices only a cut within a frame: a cut in the audio would pass for a shorter clip.
    """
    try:
        size = path.stat().st_size
        if not size and path.is_file():
            raise MediaError(f"{path}: is empty (0 bytes); replace or remove the file")
        if is_pointer(path):
            raise MediaError(f"{path}: {POINTER}")
        fault = wav_fault(path)
        with path.open("rb") as file:
            if file.read(4) == b"RIFX":  # FFmpeg takes its samples for little-endian ones
                fault = "is a wav file of big-endian samples; convert it: sox IN OUT.wav"
            file.seek(0)
            stated = _stated_bytes(file, size)
            if _is_joined(file, size):
                fault = "has another film behind the first; join the two with ffmpeg -f concat"
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if fault:
        raise MediaError(f"{path}: {fault}")
    if stated > size:
        raise MediaError(f"{path}: is truncated by {stated - size} bytes; replace or remove the file")


def _stated_bytes(file: BinaryIO, size: int) -> int:
    """Length as an mp4, mov, Matroska, WebM or avi file states it; or less than ``size``."""
    head = file.read(64)
    if head.startswith(EBML):
        length, start = _ebml_length(head, len(EBML))
        start += length or 0
        if head[start : start + len(SEGMENT)] != SEGMENT:
            return 0
        length, start = _ebml_length(head, start + len(SEGMENT))
        return 0 if length is None else start + length
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        length = int.from_bytes(head[4:8], "little")
        return 0 if length >= STREAMED else 8 + length
    boxes = list(_boxes(file, size))
    return boxes[-1][1] if boxes else 0


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of the boxes of an mp4 or mov file; an end of 0 where it is unknown."""
    start = 0
    while start + BOX_HEADER <= size:
        file.seek(start)
        header = file.read(LONG_BOX_HEADER)
        kind = header[4:8]
        if kind not in BOXES or (start == 0 and kind != b"ftyp"):
            yield b"", 0  # another format, or bytes behind the last box
            return
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # the length follows, in 8 bytes
            length = int.from_bytes(header[BOX_HEADER:], "big")
        if length < BOX_HEADER:  # 0: up to the end of the file; others are invalid
            yield kind, 0
            return
        start += length
        yield kind, start


def _is_joined(file: BinaryIO, size: int) -> bool:
    """Whether an mp4 or mov file stands behind another one, which FFmpeg reads alone; not in fragments."""
    kinds = [kind for kind, _ in _boxes(file, size)]
    return kinds.count(b"ftyp") > 1 and b"moof" not in kinds


def _ebml_length(head: bytes, at: int) -> tuple[int | None, int]:
    """Length of the EBML element (RFC 8794) whose size field is at ``at``, and where its content starts.

    The length is None where it is unknown, as in a live recording.
    """
    count = 9 - head[at : at + 1].rjust(1, b"\1")[0].bit_length()  # leading zeros tell the bytes of the field
    mask = (1 << 7 * count) - 1
    value = int.from_bytes(head[at : at + count], "big") & mask
    return None if value == mask else value, at + count


def stated_seconds(path: Path) -> float | None:
    """Length as the file states it, or else, as of a stream that was recorded, that of its packets.

    None where neither is known. Raises MediaError.
    """
    with open_media(path) as container:
        if container.duration is not None:
            return container.duration / av.time_base
        streams = (*container.streams.video, *container.streams.audio)
        ends = (
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(streams)
            if packet.pts is not None and packet.time_base is not None
        )
        start = start_seconds(container)
        return max((end - start for end in ends), default=None) if streams else None


def film(container: InputContainer, path: Path) -> VideoStream:
    """The video stream that is a film: no cover image, no thumbnails; of several the one FFmpeg prefers.

    Raises:
        MissingStreamError: the file holds none.
    """
    streams = container.streams.video
    films = [stream for stream in streams if not Disposition(stream.disposition) & COVER]
    if not films:
        raise MissingStreamError(path, "video", "has a cover image but no video" if streams else "")
    moving = [stream for stream in films if stream.codec_context.name not in STILL_CODECS] or films
    best = container.streams.best("video")
    return next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])


def has_film(container: InputContainer, path: Path) -> bool:
    """Whether the file holds a film; of a codec for still images, decodes two frames."""
    try:
        stream = film(container, path)
    except MissingStreamError:
        return False
    return stream.codec_context.name not in STILL_CODECS or len(list(islice(container.decode(stream), 2))) > 1


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream, sought: bool = False
) -> Iterator[Any]:
    """Frames of a stream in the order in which they are shown, with their times.

    An avi file states no times, and those that FFmpeg guesses are out of order where there are B-frames:
    there, a frame has the time of the packet which completed it, less the decoder's delay.

    Args:
        sought: the file was left at any place, perhaps within a packet: those before the first that can be
            decoded are skipped.
    """
    timeless = container.format.name == "avi" and stream.type == "video"
    first = delay = None
    for packet in container.demux(stream):
        first = packet.dts if first is None else first
        try:
            frames: Iterable[Any] = packet.decode()
        except av.InvalidDataError:
            if not sought:
                raise
            continue
        for frame in frames:
            sought = False
            if timeless:
                if delay is None and None not in (first, frame.dts):
                    delay = frame.dts - first
                frame.pts = None if frame.dts is None or delay is None else frame.dts - delay
            yield frame


def start_seconds(container: InputContainer) -> float:
    """Time stamp at which the earliest audio or film starts: time zero of the clip."""
    starts = [
        stream.start_time * float(stream.time_base)
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base and not Disposition(stream.disposition) & COVER
    ]
    return min(starts, default=0.0)


def steps_back(kind: str, last: float, time: float) -> str:
    """Text of the error about time stamps, in seconds, that go back."""
    return (
        f"{kind} time stamps go back from {last:.2f} to {time:.2f} s, as in joined recordings; "
        "split the file there, or join the parts with ffmpeg -f concat"
    )
