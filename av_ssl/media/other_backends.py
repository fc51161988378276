"""Tracks of faces that a back-end finds in each picture anew.

dlib's HOG detector with a 68-point shape predictor: what AV-HuBERT's data was prepared with.

dlib comes without a landmark model; the user names the file.

mediapipe's own Face Mesh: the graphs that `face_mesh` runs with OpenCV, tracked by mediapipe itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.errors import DataError
from av_ssl.media.alignment import IBUG, Floats
from av_ssl.media.faces import Faces, follow_pictures
from av_ssl.media.tracking import FORGET_AFTER, SAME_FACE, Picture, Track
from av_ssl.media.video import VideoReader

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


UPSAMPLE = 1  # times that the picture is doubled before the search, as in AV-HuBERT's preparation


class DlibBackend:
    """`model` is a file such as shape_predictor_68_face_landmarks.dat.

    Raises DataError when it cannot be read or does not find 68 points.
    """

    def __init__(self, model: Path, stride: int = 1) -> None:
        self._stride = stride
        import dlib  # an optional extra

        self._detector = dlib.get_frontal_face_detector()
        if not model.is_file():
            raise DataError(f"{model}: there is no such file; give --dlib-model a shape predictor (.dat)")
        try:
            self._predictor = dlib.shape_predictor(str(model))
        except RuntimeError as error:
            raise DataError(f"{model}: is no shape predictor of dlib ({error})") from error
        points = len(self._points(np.zeros((64, 64, 3), np.uint8), dlib.rectangle(8, 8, 56, 56)))
        if points != IBUG.count:
            raise DataError(f"{model}: finds {points} points, {IBUG.count} are needed")

    def follow(self, reader: VideoReader, clip: str) -> Faces:
        """See `Backend.follow`."""
        return follow_pictures(FaceMatcher(self._find_faces), reader, self._stride)

    def _find_faces(self, rgb: Picture) -> list[Floats]:
        return [self._points(rgb, box) for box in self._detector(rgb, UPSAMPLE)]

    def _points(self, rgb: Picture, box: Any) -> Floats:
        shape = self._predictor(rgb, box)
        return np.array([(point.x, point.y) for point in shape.parts()], np.float32).reshape(-1, 2)


MOST_FACES = 4


class MediapipeBackend:
    """Up to four faces a picture."""

    def __init__(self, stride: int = 1) -> None:
        self._stride = stride
        from mediapipe import solutions  # an optional package

        self._mesh = solutions.face_mesh.FaceMesh(max_num_faces=MOST_FACES)

    def follow(self, reader: VideoReader, clip: str) -> Faces:
        """See `Backend.follow`."""
        self._mesh.reset()  # or it would look for the faces of the clip before
        return follow_pictures(FaceMatcher(self.faces), reader, self._stride)

    def faces(self, rgb: Picture) -> list[Floats]:
        """Landmarks `[468, 3]` of each face of a picture `[H, W, 3]` (uint8, RGB), in pixels."""
        height, width = rgb.shape[:2]
        found = self._mesh.process(rgb).multi_face_landmarks or []
        scale = np.array([width, height, width], np.float32)
        return [
            np.array([(point.x, point.y, point.z) for point in face.landmark], np.float32) * scale
            for face in found
        ]
