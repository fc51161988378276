"""The packages that back-ends of cropping need; imports none of them.

Where landmarks come from, behind one interface, chosen at run time.

`opencv` needs nothing but pip and is the default; `mediapipe` and `dlib` are optional packages, `files` are
landmarks that somebody else has made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from av_ssl.errors import DataError, MediaError
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.tracking import FaceTracker, Picture, Track
from av_ssl.media.video import VideoReader


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


@dataclass(frozen=True)
class Faces:
    """The faces of a clip.

    frames: pictures in the clip. looked_at: how many of them were searched.
    """

    tracks: list[Track]
    frames: int
    looked_at: int


class Backend(Protocol):
    """Finds and follows the faces of clips; holds no state between clips that changes results."""

    def follow(self, reader: VideoReader, clip: str) -> Faces:
        """All faces of a clip, whose id is `clip`; raises MediaError when it cannot be decoded."""
        ...


class LandmarkError(MediaError):
    """Ready-made landmarks of a clip are missing or do not fit its video."""


class OpenCVBackend:
    """BlazeFace and Face Mesh through `cv2.dnn`; `mesh` saves loading the models again."""

    def __init__(self, stride: int = 1, mesh: FaceMesh | None = None) -> None:
        self._stride = stride
        self._mesh = mesh or FaceMesh()

    def follow(self, reader: VideoReader, clip: str) -> Faces:
        """See `Backend.follow`."""
        return follow_pictures(FaceTracker(self._mesh), reader, self._stride)


class PictureTracker(Protocol):
    """What `FaceTracker` and `FaceMatcher` have in common."""

    tracks: list[Track]

    def update(self, rgb: Picture | None) -> None:
        """Look at the next picture; None skips it."""
        ...


def follow_pictures(tracker: PictureTracker, reader: VideoReader, stride: int) -> Faces:
    """Show every `stride`-th picture of a clip to `tracker`, and the last, beyond which nothing is known."""
    frames = looked_at = 0
    for picture in thinned(reader.frames(), stride):
        tracker.update(picture)
        frames += 1
        looked_at += picture is not None
    return Faces(tracker.tracks, frames, looked_at)


def thinned(pictures: Iterable[Picture], stride: int) -> Iterator[Picture | None]:
    """Every `stride`-th picture and the last one, None in the place of the others.

    >>> [number for number in thinned(range(1, 9), 3)]
    [1, None, None, 4, None, None, 7, 8]
    """
    newest: Picture | None = None
    for number, picture in enumerate(pictures):
        if newest is not None:
            yield newest if (number - 1) % stride == 0 else None
        newest = picture
    if newest is not None:
        yield newest
