"""The packages that back-ends of cropping need; imports none of them."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from av_ssl.errors import DataError


class Package(NamedTuple):
    """A module that a back-end imports, and how to get it."""

    module: str
    install: str


PACKAGES = {
    "opencv": Package("cv2", "pip install opencv-python-headless"),
    "mediapipe": Package(
        "mediapipe",
        'pip install --no-deps mediapipe==0.10.21 && pip install absl-py attrs flatbuffers "protobuf<5" '
        "(Python 3.10 to 3.12; later versions hold no models)",
    ),
    "dlib": Package("dlib", "pip install 'av_ssl[dlib]'"),
}


def check_installed(backend: str) -> None:
    """Raise DataError with the mend when the package of a back-end is missing."""
    package = PACKAGES.get(backend)
    if package is not None and importlib.util.find_spec(package.module) is None:
        raise DataError(f"--backend {backend}: {package.module} is not installed; {package.install}")
