"""Video files to arrays at a constant frame rate, and back.

Frames are chosen by their time stamps, never by counting, so that audio and video stay synchronous at any
frame rate of the source: 24, 29.97, 30, 50 or variable.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from av_ssl.errors import MediaError
from av_ssl.io import write_atomically
from av_ssl.layout import FRAME_RATE
from av_ssl.media.container import MissingStreamError, open_media, start_seconds

KEEP_BYTES = 128 * 2**20  # decoded frames kept for a second pass; a longer clip is decoded again
LONGEST_GAP = 60.0  # seconds without a frame: more is a broken time stamp
CRF = 14  # 45.7 dB on studio recordings, about 455 bytes a 96x96 frame
FULL_RANGE = 2  # AVCOL_RANGE_JPEG

Frames = NDArray[np.uint8]
Span = tuple[float, float]  # start and end within a file, seconds


class VideoReader:
    """Reads the frames of a video at a constant rate, repeatedly if needed.

    Frame ``k`` is the source frame nearest to ``k / fps`` seconds after the start of the earliest stream; the
    first source frame also stands for the time before it.

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
        self._kept: list[av.VideoFrame] | None = None

    def frames(self, gray: bool = False) -> Iterator[Frames]:
        """Frames as uint8: ``[H, W]`` when ``gray``, else RGB ``[H, W, 3]``."""
        # One converter for all: it holds megabytes, which ``frame.to_ndarray`` would tie to every frame.
        converter = VideoReformatter()
        for frame in self._frames():
            converted = converter.reformat(frame, format="gray" if gray else "rgb24")
            array = np.asarray(converted.to_ndarray(), np.uint8)
            # Phones store rotated frames with a tag, counter-clockwise degrees.
            yield np.ascontiguousarray(np.rot90(array, frame.rotation // 90))

    def _frames(self) -> Iterator[av.VideoFrame]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[av.VideoFrame] | None = []
        size = 0
        last = None
        for frame in self._resampled():
            if frame is not last:
                size += sum(plane.buffer_size for plane in frame.planes)
            last = frame
            if kept is not None:
                kept.append(frame)
                if size > self.keep_bytes:
                    kept = None
            yield frame
        self._kept = kept

    def _resampled(self) -> Iterator[av.VideoFrame]:
        shown, count, end = None, 0, 0.0
        tolerance = 0.0
        for time, frame in self._decoded():
            tolerance = 0.5 / max(self.fps, self.source_fps) - 1e-6
            while shown is not None and count / self.fps + tolerance < time:
                yield shown
                count += 1
            shown = frame
            end = time + 1 / (self.source_fps or self.fps)
        if self.span is not None:
            end = min(end, self.span[1] - self.span[0])
        while shown is not None and count < max(1, round(end * self.fps)):
            yield shown
            count += 1

    def _decoded(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Every source frame with its time in seconds from the start of the clip.

        Of a span, frames from the key frame before it (at negative times) to its end.
        """
        with open_media(self.path) as container:
            if not container.streams.video:
                raise MissingStreamError(self.path, "video")
            stream = container.streams.video[0]
            # Clips are short, so threads cost more than they save; files are processed in parallel instead.
            stream.codec_context.thread_count = 1
            start = start_seconds(container)
            self.source_fps = float(stream.average_rate or self.fps)
            self.source_frames = stream.frames
            last: float | None = None
            length = float("inf")
            if self.span is not None:
                start += self.span[0]
                length = self.span[1] - self.span[0]
                if stream.time_base:
                    container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    time = 0.0 if last is None else last + 1 / self.source_fps
                else:
                    time = float(frame.pts * frame.time_base) - start
                if time >= length and last is not None:
                    break
                if time - (last or 0.0) > LONGEST_GAP:
                    raise MediaError(
                        f"{self.path}: time stamps jump to {time:.0f} s; make new ones "
                        "(ffmpeg -fflags +genpts) or remove the file"
                    )
                last = time
                yield time, frame
            if last is None:
                raise MediaError(f"{self.path}: its video stream holds no frame; replace or remove the file")


def read_video(path: Path, fps: float = FRAME_RATE, gray: bool = True) -> Frames:
    """All frames of a ``VideoReader``, uint8: ``[T, H, W]`` when ``gray``, else RGB ``[T, H, W, 3]``."""
    return np.stack(list(VideoReader(path, fps, keep_bytes=0).frames(gray)))


def write_video(path: Path, frames: Frames, fps: int = FRAME_RATE) -> None:
    """Write grayscale frames as h264 in mp4.

    The format is full range yuv420p with its tag: every reader then returns the same gray levels, which
    neither ``gray`` without a tag nor limited range achieves. The same input gives the same bytes on an idle
    machine. On a busy one x264 sometimes wrote a file that differed by about one gray level a pixel.

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
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(CRF)})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = FULL_RANGE
        stream.codec_context.thread_count = 1
        converter = VideoReformatter()
        for array in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="gray")
            frame.color_range = FULL_RANGE
            full = {"src_color_range": FULL_RANGE, "dst_color_range": FULL_RANGE}
            container.mux(stream.encode(converter.reformat(frame, format="yuv420p", **full)))
        container.mux(stream.encode())
    write_atomically(path, buffer.getvalue())
