"""Faces over time: two trackers that join the faces of successive frames into tracks.

``FaceTracker`` uses the face mesh. The detector runs once a second and whenever a known face is lost (mesh
score below 0.5). In between, the mesh alone follows each face in the region of its last position, which is
faster and steadier than detection. While there is no face, every frame is searched, once a second in small
tiles too.

``FaceMatcher`` takes the faces that any detector finds in each frame and joins the nearest ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from av_ssl.media.alignment import face_patch, shows_mouth
from av_ssl.media.face_mesh import MIN_SCORE, Detection, FaceMesh, Floats, Frame, Region
from av_ssl.media.video import VideoReader

DETECT_EVERY = 25  # frames
FORGET_AFTER = 50  # frames: a face that returns later is another track
SAME_FACE = 0.5  # centres nearer than this many face widths belong to one face
SETTLING = 3  # passes of the mesh over a new face that is upside down
SAME_PERSON = (
    0.8  # correlation of aligned faces: GRID's talkers have 0.93 after 3 frames, two of them 0.9 or less
)
# The detector misses faces below an eighth of the longer side of the frame. Tiles of this share of it, which
# overlap by the width of such a face, find those down to a twentieth.
TILE = 0.35
TILE_OVERLAP = 0.13


@dataclass
class Track:
    """One face: the frames in which it was found and its points there."""

    frames: list[int] = field(default_factory=list)
    points: list[Floats] = field(default_factory=list)
    """Each ``[P, 2 or 3]``, pixels."""

    def add(self, frame: int, points: Floats) -> None:
        self.frames.append(frame)
        self.points.append(points)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def centre(self) -> Floats:
        """Middle of the face ``[2]`` at its last position, pixels."""
        return _centre(self.points[-1])

    @property
    def width(self) -> float:
        """Width of the face at its last position, pixels."""
        return float(np.ptp(self.points[-1][:, 0]))

    def between(self, start: int, end: int) -> Track:
        """What is known of frames ``start`` to ``end - 1``, numbered from ``start``."""
        low, high = bisect_left(self.frames, start), bisect_left(self.frames, end)
        return Track([frame - start for frame in self.frames[low:high]], self.points[low:high])

    def runs(self, gap: int) -> list[tuple[int, int]]:
        """First and last frame of each stretch in which the face is never missing for over ``gap`` frames."""
        breaks = [at for at, (a, b) in enumerate(pairwise(self.frames), start=1) if b - a > gap]
        return [(self.frames[low], self.frames[high - 1]) for low, high in pairwise([0, *breaks, len(self)])]

    def forget(self, before: int) -> None:
        """Drop what is known of frames before ``before``, except for the last one known."""
        drop = min(bisect_left(self.frames, before), len(self) - 1)
        del self.frames[:drop], self.points[:drop]

    def interpolated(self, length: int) -> Floats:
        """Points ``[length, P, 2 or 3]`` for every frame: linear in between, constant beyond both ends."""
        points = np.stack(self.points)
        wanted = np.arange(length)
        known = np.array(self.frames)
        right = np.clip(np.searchsorted(known, wanted), 0, len(known) - 1)
        left = np.maximum(right - 1, 0)
        span = np.maximum(known[right] - known[left], 1)
        weight = np.clip((wanted - known[left]) / span, 0, 1).astype(np.float32)[:, None, None]
        return points[left] * (1 - weight) + points[right] * weight


@dataclass(frozen=True)
class Faces:
    """The faces of a clip."""

    tracks: list[Track]
    frames: int  # of the clip, at the reader's rate
    looked_at: Sequence[int]  # frames in which faces were searched for
    changes: int = 0  # times that a track continued with another face, as at a cut, and was divided there

    def share(self, track: Track) -> float:
        """Share of the frames in which a face was found; one that was looked at stands for those after it."""
        lengths = np.diff([*self.looked_at, self.frames])
        found = np.isin(self.looked_at, track.frames)
        return float((lengths * found).sum()) / max(1, self.frames)


class Tracker(Protocol):
    """Receives the frames of a clip in order and collects ``tracks``."""

    tracks: list[Track]

    def update(self, rgb: Frame | None) -> None:
        """Take the next frame ``[H, W, 3]`` (uint8, RGB); None skips it."""
        ...


def track_faces(tracker: Tracker, reader: VideoReader, stride: int) -> Faces:
    """Give a tracker every ``stride``-th frame of a clip and the last one, beyond which nothing is known.

    Looking more often where the face moves, and less often where it does not, was tried on GRID: at equal
    cost the crops lay no nearer to those of stride 1 than with a constant stride.
    """
    looked_at: list[int] = []
    watch = FaceWatch()
    breaks: dict[int, list[int]] = {}
    frames = 0
    decoded = reader.stored_frames()
    newest = next(decoded, None)
    while newest is not None:
        stored, newest = newest, next(decoded, None)
        if frames % stride == 0 or newest is None:
            image = reader.show(stored)
            tracker.update(image)
            for track in watch.changed(image, tracker.tracks, frames):
                breaks.setdefault(id(track), []).append(len(track) - 1)
            looked_at.append(frames)
        else:
            tracker.update(None)
        frames += 1
    return Faces(_divided(tracker.tracks, breaks), frames, looked_at, sum(map(len, breaks.values())))


def _divided(tracks: Sequence[Track], breaks: Mapping[int, Sequence[int]]) -> list[Track]:
    parts = []
    for track in tracks:
        ends = [*breaks.get(id(track), []), len(track)]
        for first, last in zip([0, *ends], ends, strict=False):
            parts.append(Track(track.frames[first:last], track.points[first:last]))
    return parts


class FaceWatch:
    """Compares the face of each track with the one before, both aligned.

    A track continues with whatever face is in the same place, also after a cut to another person.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[Track, Floats]] = {}  # the track itself keeps its id from being reused

    def changed(self, image: Frame, tracks: Sequence[Track], frame: int) -> list[Track]:
        """Tracks that hold another face in this frame than in the one before in which they were found."""
        known = {id(track) for track in tracks}
        self._last = {key: last for key, last in self._last.items() if key in known}
        found = []
        for track in tracks:
            if track.frames[-1] != frame:
                continue
            patch = face_patch(image, track.points[-1])
            last = self._last.get(id(track))
            if last is not None and float((patch * last[1]).sum()) < SAME_PERSON:
                found.append(track)
            self._last[id(track)] = track, patch
        return found


class FaceTracker:
    """Tracks all faces with detector and face mesh; a ``Tracker``."""

    def __init__(self, mesh: FaceMesh) -> None:
        self.tracks: list[Track] = []
        self._mesh = mesh
        self._frame = 0
        self._live: list[Track] = []
        self._detect_at = 0

    def update(self, rgb: Frame | None) -> None:
        if rgb is not None:
            lost = self._follow(rgb)
            due = self._frame >= self._detect_at
            if due:
                self._detect_at = self._frame + DETECT_EVERY
            if due or lost or not self._live:
                self._search(rgb, tiles=due and not self._live)
        self._frame += 1

    def divide(self, track: Track) -> Track:
        """End a live track before its last frame; returns the track that begins there."""
        new = Track([track.frames.pop()], [track.points.pop()])
        self.tracks.append(new)
        self._live = [new if live is track else live for live in self._live]
        return new

    def _follow(self, rgb: Frame) -> bool:
        """Move every live track to this frame; returns whether one was lost."""
        kept: list[Track] = []
        for track in sorted(self._live, key=len, reverse=True):
            score, points = self._mesh.landmarks(rgb, Region.around(track.points[-1]))
            # Two tracks that slid onto one face: the longer one keeps it.
            found = score >= MIN_SCORE and shows_mouth(rgb, points)
            if found and not any(_same_face(points, other) for other in kept):
                track.add(self._frame, points)
                kept.append(track)
        lost = len(kept) < len(self._live)
        self._live = kept
        return lost

    def _search(self, rgb: Frame, tiles: bool) -> None:
        """Detect faces that no live track holds; continue a track that was lost there, or begin a new one."""
        for face in _detect(self._mesh, rgb, tiles):
            if any(_near(face.box.mean(0), track) for track in self._live):
                continue
            score, points = self._landmarks(rgb, face.region)
            if score < MIN_SCORE or not shows_mouth(rgb, points):
                continue
            if any(_same_face(points, track) for track in self._live):
                continue
            track = self._recently_lost(points)
            if track is None:
                track = Track()
                self.tracks.append(track)
            track.add(self._frame, points)
            self._live.append(track)

    def _landmarks(self, rgb: Frame, region: Region) -> tuple[float, Floats]:
        """Points of a new face. The detector mistakes a face that is upside down for an upright one."""
        upright = self._mesh.landmarks(rgb, region)
        turned = self._mesh.landmarks(rgb, replace(region, angle=region.angle + np.pi))
        if upright[0] >= turned[0]:
            return upright
        for _ in range(SETTLING):  # the detector's box fits badly then
            turned = self._mesh.landmarks(rgb, Region.around(turned[1]))
        return turned

    def _recently_lost(self, points: Floats) -> Track | None:
        for track in reversed(self.tracks):
            lost = not any(track is live for live in self._live)
            if lost and self._frame - track.frames[-1] <= FORGET_AFTER and _same_face(points, track):
                return track
        return None


class FaceMatcher:
    """Joins the faces of successive frames, nearest first; a ``Tracker``.

    Args:
        find_faces: returns the landmarks ``[P, 2 or 3]`` of every face of a frame.
    """

    def __init__(self, find_faces: Callable[[Frame], list[Floats]]) -> None:
        self.tracks: list[Track] = []
        self._frame = 0
        self._find_faces = find_faces

    def update(self, rgb: Frame | None) -> None:
        if rgb is not None:
            self._match([points for points in self._find_faces(rgb) if shows_mouth(rgb, points)])
        self._frame += 1

    def _match(self, faces: list[Floats]) -> None:
        live = [track for track in self.tracks if self._frame - track.frames[-1] <= FORGET_AFTER]
        pairs = sorted(
            (float(np.linalg.norm(_centre(face) - track.centre)), number, place)
            for number, face in enumerate(faces)
            for place, track in enumerate(live)
            if _same_face(face, track)
        )
        matched: dict[int, int] = {}
        for _, number, place in pairs:
            if number not in matched and place not in matched.values():
                matched[number] = place
        for number, face in enumerate(faces):
            if number in matched:
                live[matched[number]].add(self._frame, face)
            else:
                self.tracks.append(Track([self._frame], [face]))


def _centre(points: Floats) -> Floats:
    return (points[:, :2].min(0) + points[:, :2].max(0)) / 2


def _near(point: Floats, track: Track) -> bool:
    return float(np.linalg.norm(point - track.centre)) < SAME_FACE * track.width


def _same_face(points: Floats, track: Track) -> bool:
    return _near(_centre(points), track)


def _detect(mesh: FaceMesh, rgb: Frame, tiles: bool) -> list[Detection]:
    """Faces of the frame; when there is none and ``tiles``, those found in overlapping tiles of it."""
    faces = mesh.detect(rgb)
    if faces or not tiles:
        return faces
    longest = max(rgb.shape[:2])
    side, step = max(1, int(longest * TILE)), int(longest * (TILE - TILE_OVERLAP))
    for top in _starts(rgb.shape[0], side, step):
        for left in _starts(rgb.shape[1], side, step):
            offset = np.array([left, top], np.float32)
            tile = np.ascontiguousarray(rgb[top : top + side, left : left + side])
            for face in mesh.detect(tile):
                faces.append(Detection(face.score, face.box + offset, face.key_points + offset))
    return sorted(faces, key=lambda face: face.score, reverse=True)


def _starts(length: int, side: int, step: int) -> list[int]:
    """Offsets, at most ``step`` apart, at which tiles of ``side`` cover ``length``."""
    span = max(0, length - side)
    return [int(start) for start in np.linspace(0, span, -(-span // max(1, step)) + 1)]
