"""What is cut out of every clip of a folder, and how faces are found."""

from __future__ import annotations

from dataclasses import dataclass

from av_ssl.media.alignment import REGIONS

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
