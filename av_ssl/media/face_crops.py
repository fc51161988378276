"""Mouth crops of every face of a video, as it is decoded: memory does not depend on its length.

``FaceCrops`` follows all faces and cuts their mouths as ``crop_clip`` does. ``ReadyCrops`` has the same
methods for frames that are mouth crops already, which ``are_mouth_crops`` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from av_ssl.media.alignment import MESH, OWN, MeanFace, crop_transforms, warp
from av_ssl.media.face_mesh import MIN_SCORE, FaceMesh, Floats, Frame, Region
from av_ssl.media.tracking import FORGET_AFTER, SAME_FACE, FaceTracker, FaceWatch, Track
from av_ssl.media.video import Frames

GAP = 25  # frames: a face that is not found for longer is lost
LEAST = 12  # frames: a shorter stretch with a face, or without one, does not count
MARGIN = 13  # frames on both sides that decide how a crop is placed, see ``alignment.smooth``
CHUNK = 10  # frames that are cropped at a time
LONGEST_SIDE = 1920  # pixels: larger frames are reduced, as a face in them is larger than a crop needs


@dataclass(frozen=True)
class View:
    """One frame, converted when it is asked for: grayscale ``[H, W]`` or RGB ``[H, W, 3]``, uint8."""

    gray: Callable[[], Frame]
    rgb: Callable[[], Frame]


@dataclass(frozen=True)
class FaceSpan:
    """Frames ``start`` to ``end - 1`` with the crops ``[T, S, S]`` of one face, or None without a face."""

    start: int
    end: int
    crops: Frames | None = None
    face: int | None = None


@dataclass
class Face:
    """A face and the crops of its mouth by number of the frame; faces are numbered from 1."""

    number: int
    track: Track
    crops: dict[int, Frame] = field(default_factory=dict)

    def stretches(self, start: int, end: int) -> list[tuple[int, int]]:
        """Start and end of its stretches within a span, of at least ``LEAST`` frames."""
        runs = ((max(first, start), min(last + 1, end)) for first, last in self.track.runs(GAP))
        least = min(LEAST, end - start)
        return [(low, high) for low, high in runs if high - low >= least and low in self.crops]


Choice = Callable[[Sequence[Face], int, int], Face | None]
"""Chooses one of the faces that are seen from a frame to another."""


class Crops(Protocol):
    """Crops of a video that is read bit by bit."""

    count: int  # frames whose crops are there
    ended: bool

    def advance(self, to: int) -> None:
        """Read on until there are the crops of ``to`` frames, or the video ends."""

    def faces(self, start: int, end: int) -> list[int]:
        """Numbers of the faces of a span."""

    def pieces(self, start: int, end: int, choose: Choice) -> list[FaceSpan]:
        """Pieces that make up a span."""

    def forget(self, before: int) -> None:
        """Drop what is known of the frames before ``before``."""


class FaceCrops:
    """Crops of the mouths of all faces; see ``Crops``.

    Args:
        views: frames at 25 Hz.
        size: side of the crops, pixels.
        mean_face: see ``alignment``.
        mesh: saves loading the models again.
        stride: faces are searched for in every ``stride``-th frame.
    """

    def __init__(
        self,
        views: Iterable[View],
        size: int = 96,
        mean_face: MeanFace = OWN,
        mesh: FaceMesh | None = None,
        stride: int = 3,
    ) -> None:
        self.count, self.ended = 0, False
        self._size, self._mean_face = size, mean_face
        self._views = iter(views)
        self._next = next(self._views, None)
        self._stride = stride
        self._tracker = FaceTracker(mesh or FaceMesh())
        self._watch = FaceWatch()
        self._read = 0  # frames
        self._delay = GAP + MARGIN + stride
        self._gray: dict[int, Frame] = {}
        self._faces: list[Face] = []
        self._places: dict[int, tuple[Floats, float]] = {}  # of each number: last centre and width

    def advance(self, to: int) -> None:
        while self.count < to and not self.ended:
            for _ in range(CHUNK):
                self._take()
            self.ended = self._next is None
            self._crop(self._read if self.ended else self._read - self._delay)

    def _take(self) -> None:
        """Search the next frame for faces, unless it is between two that are searched, and keep it."""
        view, self._next = self._next, next(self._views, None)
        if view is None:
            return
        searched = self._read % self._stride == 0 or self._next is None
        image = _reduced(view.rgb()) if searched else None
        self._tracker.update(image)
        if image is not None:
            for track in self._watch.changed(image, self._tracker.tracks, self._read):
                self._tracker.divide(track)
        self._gray[self._read] = _reduced(view.gray())
        self._read += 1

    def faces(self, start: int, end: int) -> list[int]:
        return sorted({face.number for face in self._faces if face.stretches(start, end)})

    def pieces(self, start: int, end: int, choose: Choice) -> list[FaceSpan]:
        face = choose([face for face in self._faces if face.stretches(start, end)], start, end)
        if face is None:
            return [FaceSpan(start, end)]
        found: list[FaceSpan] = []
        position = start
        stretches = face.stretches(start, end)
        for number, (low, high) in enumerate(stretches):
            if low - position >= LEAST:
                found += self.pieces(position, low, choose)  # where this face is not, there may be another
                position = low
            if number + 1 == len(stretches) and end - high < LEAST:
                high = end
            found.append(FaceSpan(position, high, filled(face.crops, position, high), face.number))
            position = high
        return found + (self.pieces(position, end, choose) if position < end else [])

    def forget(self, before: int) -> None:
        for face in self._faces:
            self._places[face.number] = face.track.centre, face.track.width
            face.track.forget(before - GAP - MARGIN)
            face.crops = {frame: crop for frame, crop in face.crops.items() if frame >= before}
        old = before - FORGET_AFTER - GAP
        self._tracker.tracks[:] = [track for track in self._tracker.tracks if track.frames[-1] >= old]
        self._faces = [face for face in self._faces if face.track.frames[-1] >= old]

    def _crop(self, end: int) -> None:
        """Crop the mouths in all frames before ``end`` that are not done."""
        known = {id(face.track) for face in self._faces}
        new = [track for track in self._tracker.tracks if id(track) not in known]
        for track in sorted(new, key=lambda track: (track.frames[0], float(track.centre[0]))):
            if track.frames[-1] - track.frames[0] >= LEAST - 1 or self.ended:
                self._faces.append(Face(self._number(track), track))
        for face in self._faces:
            for first, last in face.track.runs(GAP):
                self._cut(face, max(first, self.count), min(last + 1, end), first, last)
        for frame in range(self.count, end):
            del self._gray[frame]
        self.count = max(self.count, end)

    def _cut(self, face: Face, start: int, end: int, first: int, last: int) -> None:
        """Crop frames ``start`` to ``end - 1`` of the stretch from ``first`` to ``last``."""
        if start >= end:
            return
        low, high = max(first, start - MARGIN), min(last + 1, end + MARGIN)
        around = face.track.between(low - GAP, high + GAP)
        points = Track([frame - GAP for frame in around.frames], around.points).interpolated(high - low)
        transforms = crop_transforms(points, "mouth", self._size, self._mean_face)
        for frame in range(start, end):
            face.crops[frame] = warp(self._gray[frame], transforms[frame - low], self._size)

    def _number(self, track: Track) -> int:
        """The number of the last face at this place that is not there any more; else the next one."""
        live = {face.number for face in self._faces if face.track.frames[-1] >= track.frames[0]}
        places = {**self._places, **{f.number: (f.track.centre, f.track.width) for f in self._faces}}
        for number, (centre, width) in places.items():
            if number not in live and float(np.linalg.norm(track.centre - centre)) < SAME_FACE * width:
                return number
        return max(places, default=0) + 1


class ReadyCrops:
    """Frames that are mouth crops, resized to ``size`` where they have another; see ``Crops``."""

    def __init__(self, views: Iterable[View], size: int = 96) -> None:
        self.count, self.ended = 0, False
        self._size = size
        self._views = iter(views)
        self._crops: dict[int, Frame] = {}

    def advance(self, to: int) -> None:
        while self.count < to and not self.ended:
            view = next(self._views, None)
            if view is None:
                self.ended = True
                return
            self._crops[self.count] = _resized(view.gray(), self._size)
            self.count += 1

    def faces(self, start: int, end: int) -> list[int]:
        return [1]

    def pieces(self, start: int, end: int, choose: Choice) -> list[FaceSpan]:
        return [FaceSpan(start, end, filled(self._crops, start, end), 1)]

    def forget(self, before: int) -> None:
        self._crops = {frame: crop for frame, crop in self._crops.items() if frame >= before}


# The mouth of a crop is in its middle and the eyes are above or at its upper edge (coordinates from 0 to 1).
# Measured on crops of eight GRID speakers: score 0.96 and more, mouth at 0.47 to 0.55, eyes at -0.10 to 0.01.
# Crops of entire faces have the mouth at 0.63 and below.
LARGEST_CROP = 256  # pixels
OFF_CENTRE, LOWEST_EYES = 0.1, 0.1
FACE_OF_CROP = (-0.26, 2.19)  # middle of the face above that of the crop, side of its region; crop sides


def are_mouth_crops(frames: Sequence[Frame], mesh: FaceMesh) -> bool:
    """Whether most frames ``[S, S, 3]`` (uint8, RGB) show what mouth crops show.

    The face mesh gets the frame with its border repeated, at the place of the face around the mouth of a
    crop; it must find a face there whose mouth is in the middle and whose eyes are at the edge or outside.
    """
    height, width = frames[0].shape[:2]
    if height != width or width > LARGEST_CROP:
        return False
    return sum(_is_mouth_crop(frame, mesh) for frame in frames) * 2 > len(frames)


def _is_mouth_crop(frame: Frame, mesh: FaceMesh) -> bool:
    side = len(frame)
    wide = np.asarray(cv2.copyMakeBorder(frame, side, side, side, side, cv2.BORDER_REPLICATE), np.uint8)
    middle = 1.5 * side - 0.5
    region = Region((middle, middle + FACE_OF_CROP[0] * side), FACE_OF_CROP[1] * side)
    score, points = mesh.landmarks(wide, region)
    places = points[:, :2] / side - 1
    mouth, eyes = places[list(MESH.lips)].mean(0), places[list(MESH.stable[:4])].mean(0)
    return bool(score >= MIN_SCORE and np.abs(mouth - 0.5).max() <= OFF_CENTRE and eyes[1] <= LOWEST_EYES)


def filled(crops: dict[int, Frame], start: int, end: int) -> NDArray[np.uint8]:
    """Crops ``[T, S, S]`` of a span of frames; a frame without one has the nearest."""
    known = np.array(sorted(frame for frame in crops if start <= frame < end))
    wanted = np.arange(start, end)
    after = np.searchsorted(known, wanted).clip(0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - known[before] < known[after] - wanted, known[before], known[after])
    return np.stack([crops[frame] for frame in nearest.tolist()])


def _reduced(frame: Frame) -> Frame:
    factor = -(-max(frame.shape[:2]) // LONGEST_SIDE)
    if factor == 1:
        return frame
    size = (frame.shape[1] // factor, frame.shape[0] // factor)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _resized(frame: Frame, size: int) -> Frame:
    if frame.shape == (size, size):
        return frame
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
