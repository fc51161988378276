"""Pickles that hold lists of numpy arrays, read without running code from them.

`pickle.load` calls whatever a file names. Here the few names that arrays are made of stand for plain
functions of this module, and any other name is an error.

Landmarks that were made elsewhere: auto_avsr's and AV-HuBERT's files, or arrays of one's own.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.errors import DataError
from av_ssl.media.alignment import LAYOUTS, Floats
from av_ssl.media.faces import Faces, LandmarkError
from av_ssl.media.tracking import Track
from av_ssl.media.video import VideoReader

PICKLE_ERRORS = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, UnicodeDecodeError)
KINDS = frozenset("biuf")  # numbers


def read_pickled(path: Path) -> Any:
    """What the pickle holds: None, numbers, text, lists, tuples, dicts and numpy arrays of numbers.

    Raises pickle.UnpicklingError (or another of PICKLE_ERRORS, ValueError) for anything else.
    """
    with open(path, "rb") as file:
        return _plain(_ArrayUnpickler(file).load())


class _DType:
    """Stands for numpy.dtype while a pickle is read."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def build(self) -> np.dtype[Any]:
        order = "" if self.order == "|" else self.order
        dtype = np.dtype(order + self.code)
        if dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"it holds an array of {self.code}")
        return dtype


class _Array:
    """Stands for numpy.ndarray."""

    value: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):  # an array of objects
            self.value = content
        else:
            self.value = _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: Any, dtype: _DType, shape: Any, order: str = "C") -> np.ndarray:
    return np.frombuffer(bytes(content), dtype.build()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _DType, content: bytes) -> Any:
    return _from_bytes(content, dtype, ())[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


_STAND_INS = {
    "ndarray": _Array,
    "_reconstruct": _Array,
    "dtype": _DType,
    "scalar": _scalar,
    "_frombuffer": _from_bytes,
}
_NUMPY = frozenset(
    f"numpy{module}"
    for module in ("", ".core.multiarray", "._core.multiarray", ".core.numeric", "._core.numeric")
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY and name in _STAND_INS:
            return _STAND_INS[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 2 and early protocols write bytes
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array of numbers")


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


SUFFIXES = (".pkl", ".npy", ".npz")
TOLERATED_ROWS = 2  # rows by which a file may differ from its video, besides 1 %


class LandmarkFiles:
    """Reads `folder`/ID.pkl, .npy or .npz: for each picture of the source video the points of one face.

    A clip that is a part of a video takes its rows from the file of the whole one.

    A pickle is a list with an array `[68, 2]`, or None where no face was found, for each picture; it is read
    without running code from it. An array is `[T, 68, 2]` or `[T, 468, 2 or 3]`, NaN where no face was found.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; --landmarks names the one with ID.pkl or ID.npy")
        self._folder = folder

    def follow(self, reader: VideoReader, clip: str) -> Faces:
        """See `Backend.follow`; raises LandmarkError when the file is missing or of another video."""
        path = self._find(clip)
        rows = read_landmarks(path)
        frames = sum(1 for _ in reader.frames())
        start = 0.0 if reader.span is None else reader.span[0]
        wanted = (start + np.arange(frames) / reader.fps) * reader.source_fps
        _check_length(path, len(rows), reader, (start + frames / reader.fps) * reader.source_fps)
        track = Track()
        for frame, row in enumerate(np.minimum(np.round(wanted).astype(int), len(rows) - 1)):
            points = rows[row]
            if points is not None:
                track.add(frame, points)
        return Faces([track] if len(track) else [], frames, frames)

    def _find(self, clip: str) -> Path:
        for suffix in SUFFIXES:
            path = self._folder / f"{clip}{suffix}"
            if path.is_file():
                return path
        raise LandmarkError(
            f"{self._folder / clip}.pkl: does not exist, nor .npy or .npz; make landmarks of this clip, or "
            "choose another --backend"
        )


def _check_length(path: Path, rows: int, reader: VideoReader, end: float) -> None:
    """Raise LandmarkError unless the video has so many pictures as rows; the clip needs the first `end`."""
    pictures = end if reader.span is None else max(end, reader.source_frames)
    tolerated = TOLERATED_ROWS + 0.01 * pictures
    # How many pictures follow a part, not every container says.
    known = reader.span is None or reader.source_frames
    if end - rows > tolerated or (known and rows - pictures > tolerated):
        raise LandmarkError(
            f"{path}: holds landmarks of {rows} pictures, {reader.path} has about {pictures:.0f}; "
            "make them from the whole video, at its own frame rate"
        )


def read_landmarks(path: Path) -> list[Floats | None]:
    """Points `[P, 2 or 3]` of each picture, None without a face; raises LandmarkError for other files."""
    try:
        rows = _rows(path)
        landmarks = [_points(row) for row in rows]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, *PICKLE_ERRORS) as error:
        raise LandmarkError(
            f"{path}: holds no landmarks ({error}); needed is an array [68, 2] or None for each picture"
        ) from error
    if not landmarks:
        raise LandmarkError(f"{path}: is empty; make the landmarks again")
    sizes = {len(points) for points in landmarks if points is not None}
    if len(sizes) > 1:
        raise LandmarkError(f"{path}: mixes faces of {sorted(sizes)} points; make the landmarks again")
    return landmarks


def _rows(path: Path) -> Iterable[Any]:
    if path.suffix == ".pkl":
        value = read_pickled(path)
        if not isinstance(value, list | tuple | np.ndarray):
            raise ValueError(f"a {type(value).__name__} instead of a list")
        return value
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1 and "data" not in loaded.files:
            raise ValueError(f"arrays {', '.join(loaded.files)} instead of one")
        return np.asarray(loaded["data" if "data" in loaded.files else loaded.files[0]])


def _points(row: Any) -> Floats | None:
    if row is None:
        return None
    points = np.asarray(row, np.float32)
    if points.ndim == 3 and len(points):  # several faces: AV-HuBERT's preparation keeps the first
        points = points[0]
    if not points.size or np.isnan(points).any():
        return None
    if points.ndim != 2 or len(points) not in LAYOUTS or points.shape[1] not in (2, 3):
        raise ValueError(f"an array {list(points.shape)}")
    return points
