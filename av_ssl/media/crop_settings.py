"""Crop settings, and the back-end that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.media.alignment import REGIONS
from av_ssl.media.faces import Backend, OpenCVBackend, check_installed
from av_ssl.media.landmark_files import LandmarkFiles
from av_ssl.media.other_backends import DlibBackend, MediapipeBackend

OPENCV, MEDIAPIPE, DLIB, FILES = "opencv", "mediapipe", "dlib", "files"
BACKENDS = (OPENCV, MEDIAPIPE, DLIB, FILES)


@dataclass(frozen=True)
class CropSettings:
    """Plain values, since they are written into the folder of the crops.

    size: side of the crop, pixels, even. region: "mouth" or "face". stride: landmarks are found on every k-th
    frame and interpolated between; they are averaged over half a second anyway. backend: see `backends`;
    dlib_model: its model file, for dlib. landmarks: folder of ready-made ones, for files. mean_face: file
    with AV-HuBERT's mean face; None for our own.
    """

    size: int = 96
    region: str = "mouth"
    stride: int = 3
    backend: str = OPENCV
    dlib_model: str | None = None
    landmarks: str | None = None
    mean_face: str | None = None

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be even and at least 16, not {self.size}")
        if self.region not in REGIONS:
            raise ValueError(f"region must be one of {', '.join(REGIONS)}, not {self.region}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, not {self.stride}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend}")


def make_backend(settings: CropSettings) -> Backend:
    """The back-end, ready for clips; raises DataError when it is not installed or lacks a file."""
    check_installed(settings.backend)
    if settings.backend == DLIB:
        if settings.dlib_model is None:
            raise DataError("--backend dlib: needs --dlib-model FILE, a shape predictor of 68 points (.dat)")
        return DlibBackend(Path(settings.dlib_model), settings.stride)
    if settings.backend == MEDIAPIPE:
        return MediapipeBackend(settings.stride)
    if settings.backend == FILES:
        if settings.landmarks is None:
            raise DataError("--backend files: needs --landmarks DIR, a folder with ID.pkl, ID.npy or ID.npz")
        return LandmarkFiles(Path(settings.landmarks))
    return OpenCVBackend(settings.stride)
