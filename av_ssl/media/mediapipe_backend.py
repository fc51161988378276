"""mediapipe's own Face Mesh: the graphs that `face_mesh` runs with OpenCV, tracked by mediapipe itself."""

from __future__ import annotations

import numpy as np
from mediapipe import solutions

from av_ssl.media.backends import Faces, follow_pictures
from av_ssl.media.layouts import Floats
from av_ssl.media.matching import FaceMatcher
from av_ssl.media.tracking import Picture
from av_ssl.media.video import VideoReader

MOST_FACES = 4


class MediapipeBackend:
    """Up to four faces a picture."""

    def __init__(self, stride: int = 1) -> None:
        self._stride = stride
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
