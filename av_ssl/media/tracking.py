"""Follows every face of a clip from picture to picture with the face mesh.

A face is looked for with the detector once a second and whenever a known face is lost (mesh score below 0.5);
between, the mesh alone follows each face in the region where it last was, which is faster and steadier than
detecting it anew. While there is no face, every picture is searched, and once a second in small tiles too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.face_mesh import Detection, FaceMesh, Floats, Region

MIN_SCORE = 0.5  # of the mesh: below, the face is lost
DETECT_EVERY = 25  # frames
FORGET_AFTER = 50  # frames: a face that comes back later is another track
SAME_FACE = 0.5  # centres nearer than this many face widths belong to one face
# The detector misses faces below an eighth of the longer side of the picture. Tiles of this share of it, that
# overlap by as much as such a face is wide, find those down to a twentieth.
TILE = 0.35
TILE_OVERLAP = 0.13

Picture = NDArray[np.uint8]


@dataclass
class Track:
    """One face: the frames in which it was seen and its points there."""

    frames: list[int] = field(default_factory=list)
    points: list[Floats] = field(default_factory=list)  # each [468, 3], pixels

    def add(self, frame: int, points: Floats) -> None:
        """Note the face's points in one more frame."""
        self.frames.append(frame)
        self.points.append(points)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def centre(self) -> Floats:
        """Middle of the face `[2]` where it was last seen, pixels."""
        return (self.points[-1][:, :2].min(0) + self.points[-1][:, :2].max(0)) / 2

    @property
    def width(self) -> float:
        """Width of the face where it was last seen, pixels."""
        return float(np.ptp(self.points[-1][:, 0]))

    def interpolated(self, length: int) -> Floats:
        """Points `[length, 468, 3]` for every frame: linear between those seen, both ends copied outwards."""
        points = np.stack(self.points)
        wanted = np.arange(length)
        seen = np.array(self.frames)
        right = np.clip(np.searchsorted(seen, wanted), 0, len(seen) - 1)
        left = np.maximum(right - 1, 0)
        span = np.maximum(seen[right] - seen[left], 1)
        weight = np.clip((wanted - seen[left]) / span, 0, 1).astype(np.float32)[:, None, None]
        return points[left] * (1 - weight) + points[right] * weight


class FaceTracker:
    """Tracks of all faces; feed it the pictures in order, then read `tracks`.

    Pictures may be skipped, which `Track.interpolated` fills in.
    """

    def __init__(self, mesh: FaceMesh) -> None:
        self.tracks: list[Track] = []
        self._mesh = mesh
        self._frame = 0
        self._live: list[Track] = []
        self._detect_at = 0

    @property
    def frames(self) -> int:
        """How many pictures have been seen."""
        return self._frame

    def update(self, rgb: Picture | None) -> None:
        """Look at the next picture `[H, W, 3]` (uint8, RGB); None skips it."""
        if rgb is not None:
            lost = self._follow(rgb)
            due = self._frame >= self._detect_at
            if due:
                self._detect_at = self._frame + DETECT_EVERY
            if due or lost or not self._live:
                self._search(rgb, tiles=due and not self._live)
        self._frame += 1

    def _follow(self, rgb: Picture) -> bool:
        """Move every live track to this picture; returns whether one was lost."""
        kept: list[Track] = []
        for track in sorted(self._live, key=len, reverse=True):
            score, points = self._mesh.landmarks(rgb, Region.around(track.points[-1]))
            # Two tracks that slid onto one face: the longer one keeps it.
            if score >= MIN_SCORE and not any(_same_face(points, other) for other in kept):
                track.add(self._frame, points)
                kept.append(track)
        lost = len(kept) < len(self._live)
        self._live = kept
        return lost

    def _search(self, rgb: Picture, tiles: bool) -> None:
        """Detect faces that no live track holds; go on with a track lost near there, or begin a new one."""
        for face in _detect(self._mesh, rgb, tiles):
            if any(_near(face.box.mean(0), track) for track in self._live):
                continue
            score, points = self._mesh.landmarks(rgb, face.region)
            if score < MIN_SCORE or any(_same_face(points, track) for track in self._live):
                continue
            track = self._recently_lost(points)
            if track is None:
                track = Track()
                self.tracks.append(track)
            track.add(self._frame, points)
            self._live.append(track)

    def _recently_lost(self, points: Floats) -> Track | None:
        for track in reversed(self.tracks):
            lost = not any(track is live for live in self._live)
            if lost and self._frame - track.frames[-1] <= FORGET_AFTER and _same_face(points, track):
                return track
        return None


def _near(point: Floats, track: Track) -> bool:
    return float(np.linalg.norm(point - track.centre)) < SAME_FACE * track.width


def _same_face(points: Floats, track: Track) -> bool:
    return _near((points[:, :2].min(0) + points[:, :2].max(0)) / 2, track)


def _detect(mesh: FaceMesh, rgb: Picture, tiles: bool) -> list[Detection]:
    """Faces of the picture; when there is none and `tiles`, those found in overlapping tiles of it."""
    faces = mesh.detect(rgb)
    if faces or not tiles:
        return faces
    longest = max(rgb.shape[:2])
    side, step = int(longest * TILE), int(longest * (TILE - TILE_OVERLAP))
    for top in _starts(rgb.shape[0], side, step):
        for left in _starts(rgb.shape[1], side, step):
            offset = np.array([left, top], np.float32)
            tile = np.ascontiguousarray(rgb[top : top + side, left : left + side])
            for face in mesh.detect(tile):
                faces.append(Detection(face.score, face.box + offset, face.key_points + offset))
    return sorted(faces, key=lambda face: face.score, reverse=True)


def _starts(length: int, side: int, step: int) -> list[int]:
    """Offsets, at most `step` apart, at which tiles of `side` cover `length`."""
    span = max(0, length - side)
    return [int(start) for start in np.linspace(0, span, -(-span // max(1, step)) + 1)]
