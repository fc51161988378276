"""dlib's HOG detector with a 68-point shape predictor: what AV-HuBERT's data was prepared with.

dlib comes without a landmark model; the user names the file.
"""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np

from av_ssl.errors import DataError
from av_ssl.media.backends import Faces, follow_pictures
from av_ssl.media.layouts import IBUG, Floats
from av_ssl.media.matching import FaceMatcher
from av_ssl.media.tracking import Picture
from av_ssl.media.video import VideoReader

UPSAMPLE = 1  # times that the picture is doubled before the search, as in AV-HuBERT's preparation


class DlibBackend:
    """`model` is a file such as shape_predictor_68_face_landmarks.dat.

    Raises DataError when it cannot be read or does not find 68 points.
    """

    def __init__(self, model: Path, stride: int = 1) -> None:
        self._stride = stride
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

    def _points(self, rgb: Picture, box: dlib.rectangle) -> Floats:
        shape = self._predictor(rgb, box)
        return np.array([(point.x, point.y) for point in shape.parts()], np.float32).reshape(-1, 2)
