"""Tracks of faces that a back-end finds in each picture anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from av_ssl.media.layouts import Floats
from av_ssl.media.tracking import FORGET_AFTER, SAME_FACE, Picture, Track

FindFaces = Callable[[Picture], list[Floats]]


class FaceMatcher:
    """Joins the faces of successive pictures to tracks, nearest first; used as `FaceTracker` is.

    `find_faces` returns the landmarks `[P, 2 or 3]` of every face of a picture.
    """

    def __init__(self, find_faces: FindFaces) -> None:
        self.tracks: list[Track] = []
        self.frames = 0
        self._find_faces = find_faces

    def update(self, rgb: Picture | None) -> None:
        """Look at the next picture `[H, W, 3]` (uint8, RGB); None skips it."""
        if rgb is not None:
            self._match(self._find_faces(rgb))
        self.frames += 1

    def _match(self, faces: list[Floats]) -> None:
        live = [track for track in self.tracks if self.frames - track.frames[-1] <= FORGET_AFTER]
        pairs = sorted(
            (distance, number, place)
            for number, face in enumerate(faces)
            for place, track in enumerate(live)
            if (distance := _distance(face, track)) < SAME_FACE * track.width
        )
        matched: dict[int, int] = {}
        for _, number, place in pairs:
            if number not in matched and place not in matched.values():
                matched[number] = place
        for number, face in enumerate(faces):
            if number in matched:
                live[matched[number]].add(self.frames, face)
            else:
                self.tracks.append(Track())
                self.tracks[-1].add(self.frames, face)


def _distance(face: Floats, track: Track) -> float:
    centre = (face[:, :2].min(0) + face[:, :2].max(0)) / 2
    return float(np.linalg.norm(centre - track.centre))
