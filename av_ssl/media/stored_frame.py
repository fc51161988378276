"""From a decoded frame to the image that a player shows: upright, square pixels, deinterlaced.

Containers state three things that decoding leaves undone: the display matrix (phones store turned or mirrored
frames), the sample aspect ratio (pixels of DV, DVDs and broadcasts are not square), and that a frame consists
of two fields of different times. The size may change in the middle of a file, as in recordings of calls.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Size = tuple[int, int]  # width and height, pixels

# New versions of PyAV start a thread a core for each frame, which takes longer than the work.
ONE_THREAD: dict[str, int] = {"threads": 1} if "threads" in str(VideoReformatter.reformat.__doc__) else {}
MOST_STRETCH = 4  # a pixel that is wider or higher than this is a mistake of the file


@dataclass(frozen=True)
class StoredFrame:
    """A decoded frame and the shape of its pixels."""

    frame: av.VideoFrame
    aspect: float = 1.0  # width of a stored pixel over its height

    def image(self, converter: VideoReformatter, gray: bool) -> Image:
        """Upright pixels as stored, ``[H, W]`` when ``gray``, else RGB ``[H, W, 3]``; not stretched."""
        converted = converter.reformat(self.frame, format="gray" if gray else "rgb24", **ONE_THREAD)
        return upright(np.asarray(converted.to_ndarray(), np.uint8), display_matrix(self.frame))

    @property
    def size(self) -> Size:
        """Size at which the frame is displayed. The shorter side of the pixels is stretched."""
        width, height = self.frame.width, self.frame.height
        if self.aspect > 1:
            width = round(width * self.aspect)
        else:
            height = round(height / self.aspect)
        return (height, width) if _transposes(display_matrix(self.frame)) else (width, height)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The linear part a, b, c, d of the display matrix: (x, y) is shown at (a x + c y, b x + d y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    values = struct.unpack("=9i", bytes(data)[:36])
    return values[0], values[1], values[3], values[4]


def _transposes(matrix: tuple[int, int, int, int]) -> bool:
    a, b, _, _ = matrix
    return abs(b) > abs(a)


def upright(image: Image, matrix: tuple[int, int, int, int]) -> Image:
    """Turn or mirror an image ``[H, W, ...]`` into the nearest of the eight orientations."""
    a, b, c, d = matrix
    horizontal, vertical = a, d
    if _transposes(matrix):
        image, horizontal, vertical = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if vertical < 0 else 1, :: -1 if horizontal < 0 else 1])


@dataclass(frozen=True)
class Placement:
    """Where a stored image lies on the canvas of its clip, whose size is that of the first frame.

    Pixel p of the image is pixel ``(p + 0.5) * ratio - 0.5 + offset`` of the canvas, x before y.
    """

    ratio: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    @lru_cache(maxsize=64)
    def fitting(cls, stored: Size, shown: Size, canvas: Size) -> Placement:
        """The largest that fits, in the middle, in the shape that is shown."""
        scale = min(canvas[0] / shown[0], canvas[1] / shown[1])
        inner = np.maximum(np.round(np.array(shown) * scale), 1)
        return cls(inner / np.array(stored), (np.array(canvas) - inner) // 2)

    def onto_canvas(self, image: Image, canvas: Size) -> Image:
        """The canvas with the image on it; the rest is black."""
        inner = np.round(self.ratio * image.shape[1::-1]).astype(int)
        if tuple(inner) != image.shape[1::-1]:
            shrinks = bool((self.ratio < 1).all())
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(
                cv2.resize(image, (int(inner[0]), int(inner[1])), interpolation=method), np.uint8
            )
        left, top = self.offset.astype(int)
        right, bottom = np.array(canvas) - inner - (left, top)
        if left or top or right or bottom:
            border = int(top), int(bottom), int(left), int(right)
            image = np.asarray(cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT), np.uint8)
        return image


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames; those that are stored as two fields are made progressive, by FFmpeg's ``bwdif``."""
    graph, kind = None, None
    for frame in frames:
        now = frame.width, frame.height, frame.format.name, frame.time_base
        if graph is not None and now != kind:
            yield from _drained(graph)
            graph = None
        if graph is None and frame.interlaced_frame:
            graph, kind = _deinterlacer(frame), now
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _ready(graph)
    if graph is not None:
        yield from _drained(graph)


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    fields = graph.add("bwdif", "mode=send_frame:deint=interlaced:threads=1")
    sink = graph.add("buffersink")
    source.link_to(fields)
    fields.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame


def _drained(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    graph.push(None)
    yield from _ready(graph)
