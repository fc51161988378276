"""Video files to arrays at a constant frame rate, and back.

Frames are chosen by their time stamps, never by counting, so that audio and video stay synchronous at any
frame rate of the source: 24, 29.97, 30, 50 or variable.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from av_ssl.errors import MediaError
from av_ssl.io import write_atomically
from av_ssl.layout import FRAME_RATE
from av_ssl.media.container import (
    LARGEST_STEP_BACK,
    STILL_CODECS,
    MissingStreamError,
    Span,
    decoded,
    film,
    open_media,
    start_seconds,
    steps_back,
)
from av_ssl.media.sound_clock import RESTART
from av_ssl.media.stored_frame import MOST_STRETCH, Image, Placement, Size, StoredFrame, deinterlaced

KEEP_BYTES = 128 * 2**20  # decoded frames kept for a second pass; a longer clip is decoded again
LONGEST_GAP = 60.0  # seconds without a frame: more is a broken time stamp
FROZEN = 0.5  # seconds without a new frame: more is reported
LONGEST_LAST = 1.0  # seconds for which the last frame is shown at most
# Crops of GRID at 96x96: 338 bytes a frame, 46.7 dB, no frame below 45 dB. ``mbtree`` must stay off: x264's
# macroblock tree reads memory that it has not set (seen with AVX-512), so that the bytes of a crop would
# depend on the clips that its process encoded before.
CODEC = "libx264"
CODEC_OPTIONS = {"preset": "veryfast", "crf": "16.2", "x264-params": "mbtree=0:aq-mode=0:qcomp=1"}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG

Frames = NDArray[np.uint8]


class VideoReader:
    """Reads the frames of a video at a constant rate, repeatedly if needed.

    Frame ``k`` is the source frame nearest to ``k / fps`` seconds after the start of the earliest stream; the
    first source frame also stands for the time before it. Frames are shown as a player shows them: upright,
    with square pixels, without interlacing. All have the size of the first one: others are scaled to fit.

    Args:
        path: the file; reading raises MissingStreamError or MediaError.
        fps: frames a second.
        keep_bytes: decoded frames up to this size are kept for a second pass.
        span: start and end in seconds of the part to read; None reads all.
    """

    def __init__(
        self, path: Path, fps: float = FRAME_RATE, keep_bytes: int = KEEP_BYTES, span: Span | None = None
    ) -> None:
        self.path = path
        self.fps = fps
        self.keep_bytes = keep_bytes
        self.span = span
        # As the container states them, known after the first pass; 0 where it does not.
        self.source_fps = 0.0
        self.source_frames = 0  # in the entire file
        self.frozen = 0.0  # seconds between frames that are more than FROZEN apart
        self.size: Size = (0, 0)  # width and height of the frames, pixels; known after the first frame
        # One converter for all: it holds megabytes, which ``frame.to_ndarray`` would tie to every frame.
        self._converter = VideoReformatter()
        self._kept: list[StoredFrame] | None = None

    def frames(self, gray: bool = False) -> Iterator[Frames]:
        """Frames as uint8: ``[H, W]`` when ``gray``, else RGB ``[H, W, 3]``."""
        for stored in self.stored_frames():
            yield self.show(stored, gray)

    def show(self, stored: StoredFrame, gray: bool = False) -> Image:
        """One of ``stored_frames`` as ``frames`` gives it."""
        image, placement = self.placed(stored, gray)
        return placement.onto_canvas(image, self.size)

    def placed(self, stored: StoredFrame, gray: bool = False) -> tuple[Image, Placement]:
        """One of ``stored_frames`` in its stored resolution, and where it lies on the frame."""
        image = stored.image(self._converter, gray)
        return image, Placement.fitting((image.shape[1], image.shape[0]), stored.size, self.size)

    def stored_frames(self) -> Iterator[StoredFrame]:
        """Frames before their conversion to arrays, which costs time."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[StoredFrame] | None = []
        size = 0
        last = None
        for stored in self._resampled():
            if stored is not last:
                size += sum(plane.buffer_size for plane in stored.frame.planes)
            last = stored
            if kept is not None:
                kept.append(stored)
                if size > self.keep_bytes:
                    kept = None
            if self.size == (0, 0):
                self.size = stored.size
            yield stored
        self._kept = kept

    def _resampled(self) -> Iterator[StoredFrame]:
        shown, count, end = None, 0, 0.0
        tolerance = 0.0
        for time, stored in self._decoded():
            tolerance = 0.5 / max(self.fps, self.source_fps) - 1e-6
            while shown is not None and count / self.fps + tolerance < time:
                yield shown
                count += 1
            shown = stored
            shown_for = float((stored.frame.duration or 0) * (stored.frame.time_base or 0))
            end = time + min(shown_for or 1 / (self.source_fps or self.fps), LONGEST_LAST)
        if self.span is not None:
            end = min(end, self.span[1] - self.span[0])
        while shown is not None and count < max(1, round(end * self.fps)):
            yield shown
            count += 1

    def _decoded(self) -> Iterator[tuple[float, StoredFrame]]:
        """Every source frame with its time in seconds from the start of the clip.

        Of a span, frames from the key frame before it (at negative times) to its end.
        """
        frames = self._read(seek=self.span is not None)
        if self.span is not None:
            first = next(frames)
            if first[0] > 1 / self.fps:  # in MPEG program streams a seek may end behind its place
                frames = self._read(seek=False)
            else:
                yield first
        yield from frames

    def _read(self, seek: bool) -> Iterator[tuple[float, StoredFrame]]:
        """See ``_decoded``; without ``seek``, from the first frame of the file."""
        with open_media(self.path) as container:
            stream = film(container, self.path)
            # Clips are short, so threads cost more than they save; files are processed in parallel instead.
            stream.codec_context.thread_count = 1
            start = start_seconds(container)
            self.source_fps = float(stream.average_rate or self.fps)
            self.source_frames = stream.frames
            length = float("inf")
            if self.span is not None:
                start += self.span[0]
                length = self.span[1] - self.span[0]
                if seek and stream.time_base:
                    container.seek(int(start / stream.time_base), stream=stream)
            aspect = _Aspect(self.path, stream)
            clock = _Clock(self.path, start, self.source_fps)
            for frame in deinterlaced(decoded(container, stream, sought=seek)):
                time = clock.time(frame)
                if time >= length and clock.count > 1:
                    break
                self.frozen = clock.frozen
                yield time, StoredFrame(frame, aspect.now())
            if not clock.count:
                raise MediaError(f"{self.path}: its video stream holds no frame; replace or remove the file")
            if clock.count == 1 and stream.codec_context.name in STILL_CODECS:
                raise MissingStreamError(self.path, "video", "has a cover image but no video")


class _Clock:
    """Times of the frames of a file, seconds from the start of the clip."""

    def __init__(self, path: Path, start: float, rate: float) -> None:
        self.count = 0  # frames so far
        self.frozen = 0.0  # see ``VideoReader``
        self._path, self._start, self._rate = path, start, rate
        self._last = self._late = 0.0

    def time(self, frame: av.VideoFrame) -> float:
        """Time of the next frame; one without a time stamp follows the last one.

        Raises:
            MediaError: it is far from the last one.
        """
        after = self._last + 1 / self._rate if self.count else 0.0
        time = after
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - self._start + self._late
        step = time - self._last
        if step > LONGEST_GAP:
            raise MediaError(
                f"{self._path}: time stamps jump to {time:.0f} s; make new ones "
                "(ffmpeg -fflags +genpts) or remove the file"
            )
        if self.count and -step > LARGEST_STEP_BACK:
            raise MediaError(f"{self._path}: {steps_back('video', self._last, time)}")
        if self.count and step < 0 and frame.key_frame and after - time <= RESTART:
            self._late += after - time  # an encoder was restarted: as of audio, nothing is lost
            time = after
        self.frozen += step if self.count and step > FROZEN else 0.0
        self.count += 1
        self._last = time
        return time


class _Aspect:
    """Sample aspect ratio: the container's, until that of the coded stream changes."""

    def __init__(self, path: Path, stream: VideoStream) -> None:
        self._path = path
        self._stream = stream
        self._first: tuple[Fraction | None] | None = None  # as coded in the first frame
        self._last: Fraction | None = None
        self._aspect = 1.0

    def now(self) -> float:
        coded = self._stream.codec_context.sample_aspect_ratio
        if self._first and coded == self._last:
            return self._aspect
        self._first, self._last = self._first or (coded,), coded
        stated = self._stream.sample_aspect_ratio if coded == self._first[0] else None
        self._aspect = float(stated or coded or 1)  # None or 0: unknown
        if not 1 / MOST_STRETCH <= self._aspect <= MOST_STRETCH:
            raise MediaError(
                f"{self._path}: states pixels {self._aspect:.3g} times as wide as high; "
                "set the right ratio (ffmpeg -aspect)"
            )
        return self._aspect


def read_video(path: Path, fps: float = FRAME_RATE, gray: bool = True) -> Frames:
    """All frames of a ``VideoReader``, uint8: ``[T, H, W]`` when ``gray``, else RGB ``[T, H, W, 3]``."""
    return np.stack(list(VideoReader(path, fps, keep_bytes=0).frames(gray)))


def write_video(path: Path, frames: Frames, fps: int = FRAME_RATE) -> None:
    """Write grayscale frames as h264 in mp4.

    The format is full range yuv420p with its tag: every reader then returns the same gray levels, which
    neither ``gray`` without a tag nor limited range achieves. The same input gives the same bytes.

    Args:
        path: the file.
        frames: ``[T, H, W]`` uint8, H and W even.
        fps: frames a second.
    """
    if frames.ndim != 3 or not len(frames) or frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames must be [T, H, W] with T > 0 and even H, W, not {list(frames.shape)}")
    # Encoded in memory, since FFmpeg does not report every failed write.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(CODEC, rate=fps, options=dict(CODEC_OPTIONS))
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = FULL_RANGE
        stream.codec_context.thread_count = 1
        height, width = frames.shape[1:]
        planes = np.full((height * 3 // 2, width), 128, np.uint8)  # of yuv420p, without colour
        for array in frames:
            planes[:height] = array
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.color_range = FULL_RANGE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_atomically(path, buffer.getvalue())
