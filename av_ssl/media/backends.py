"""Sources of landmarks behind one interface, chosen at run time.

``opencv`` needs nothing but pip and is the default. ``mediapipe`` and ``dlib`` are optional packages.
``files`` are landmarks that were made elsewhere.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from av_ssl.errors import DataError
from av_ssl.media import INSTALL
from av_ssl.media.alignment import IBUG
from av_ssl.media.face_mesh import FaceMesh, Floats, Frame
from av_ssl.media.landmark_files import LandmarkFiles
from av_ssl.media.tracking import FaceMatcher, Faces, FaceTracker, track_faces
from av_ssl.media.video import VideoReader

OPENCV, MEDIAPIPE, DLIB, FILES = "opencv", "mediapipe", "dlib", "files"
BACKENDS = (OPENCV, MEDIAPIPE, DLIB, FILES)
MODULES = {OPENCV: "cv2", MEDIAPIPE: "mediapipe", DLIB: "dlib"}
DLIB_UPSAMPLING = 1  # times that the frame is doubled before detection, as in AV-HuBERT's preparation
MEDIAPIPE_FACES = 4  # at most, in a frame


class Backend(Protocol):
    """Finds and tracks the faces of clips; keeps no state between clips that changes results."""

    def track(self, reader: VideoReader, clip: str) -> Faces:
        """Faces of the clip whose id is ``clip``; raises MediaError when it cannot be decoded."""
        ...


def make_backend(name: str, stride: int, dlib_model: str | None, landmarks: str | None) -> Backend:
    """The back-end ``name`` of BACKENDS; see ``CropSettings`` for the arguments.

    Raises:
        DataError: a package is not installed, or a file is missing.
    """
    module = MODULES.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        raise DataError(f"--backend {name}: {module} is not installed; {INSTALL[module]}")
    if name == DLIB:
        if dlib_model is None:
            raise DataError("--backend dlib: needs --dlib-model FILE, a shape predictor of 68 points (.dat)")
        return DlibBackend(Path(dlib_model), stride)
    if name == MEDIAPIPE:
        return MediapipeBackend(stride)
    if name == FILES:
        if landmarks is None:
            raise DataError("--backend files: needs --landmarks DIR, a folder with ID.pkl, ID.npy or ID.npz")
        return LandmarkFiles(Path(landmarks))
    return OpenCVBackend(stride)


class OpenCVBackend:
    """BlazeFace and Face Mesh through ``cv2.dnn``; ``mesh`` saves loading the models again."""

    def __init__(self, stride: int = 1, mesh: FaceMesh | None = None) -> None:
        self._stride = stride
        self._mesh = mesh or FaceMesh()

    def track(self, reader: VideoReader, clip: str) -> Faces:
        return track_faces(FaceTracker(self._mesh), reader, self._stride)


class DlibBackend:
    """dlib's HOG detector with a 68-point shape predictor, as AV-HuBERT's data was prepared.

    Args:
        model: a file such as ``shape_predictor_68_face_landmarks.dat``; dlib ships none.
        stride: faces are searched for in every ``stride``-th frame.
    """

    def __init__(self, model: Path, stride: int = 1) -> None:
        import dlib  # an optional package

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

    def track(self, reader: VideoReader, clip: str) -> Faces:
        return track_faces(FaceMatcher(self._find_faces), reader, self._stride)

    def _find_faces(self, rgb: Frame) -> list[Floats]:
        return [self._points(rgb, box) for box in self._detector(rgb, DLIB_UPSAMPLING)]

    def _points(self, rgb: Frame, box: Any) -> Floats:
        shape = self._predictor(rgb, box)
        return np.array([(point.x, point.y) for point in shape.parts()], np.float32).reshape(-1, 2)


class MediapipeBackend:
    """mediapipe's own Face Mesh, the graphs that ``FaceMesh`` runs with OpenCV; up to four faces a frame."""

    def __init__(self, stride: int = 1) -> None:
        from mediapipe import solutions  # an optional package

        self._stride = stride
        self._mesh = solutions.face_mesh.FaceMesh(max_num_faces=MEDIAPIPE_FACES)

    def track(self, reader: VideoReader, clip: str) -> Faces:
        self._mesh.reset()  # or it would search for the faces of the previous clip
        return track_faces(FaceMatcher(self.faces), reader, self._stride)

    def faces(self, rgb: Frame) -> list[Floats]:
        """Landmarks ``[468, 3]`` of each face of a frame ``[H, W, 3]`` (uint8, RGB), in pixels."""
        height, width = rgb.shape[:2]
        found = self._mesh.process(rgb).multi_face_landmarks or []
        scale = np.array([width, height, width], np.float32)
        return [
            np.array([(point.x, point.y, point.z) for point in face.landmark], np.float32) * scale
            for face in found
        ]
