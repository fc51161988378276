"""Landmarks that were made elsewhere: pickles as auto_avsr and AV-HuBERT store them, or numpy arrays.

``pickle.load`` calls whatever a file names; :mod:`av_ssl_fairseq_hook.strict_pickle` reads nothing but arrays
of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.errors import DataError, MediaError
from av_ssl.io import mapped_array, zipped_arrays
from av_ssl.media.alignment import LAYOUTS
from av_ssl.media.face_mesh import Floats
from av_ssl.media.tracking import Faces, Track
from av_ssl.media.video import VideoReader
from av_ssl_fairseq_hook.strict_pickle import ARRAYS, StrictUnpickler

TOLERATED_ROWS = 2  # rows by which a file may differ from its video, in addition to 1 %
NUMBERS = frozenset("biuf")  # kinds of dtype
SUFFIXES = (".pkl", ".npy", ".npz")


class LandmarkError(MediaError):
    """The landmark file of a clip is missing or does not fit its video."""


class LandmarkFiles:
    """Back-end that reads ``folder``/ID.pkl, .npy or .npz: a row of points of one face for each source frame.

    A pickle is a list with an array ``[68, 2]``, or None without a face, for each frame. An array is ``[T,
    68, 2]`` or ``[T, 468, 2 or 3]``, NaN without a face. Points are pixels of the frames as OpenCV reads
    them: upright, but not stretched where pixels are not square. A clip that is a part of a video takes its
    rows from the file of the entire video.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; --landmarks names the one with ID.pkl or ID.npy")
        self._folder = folder

    def track(self, reader: VideoReader, clip: str) -> Faces:
        """See ``Backend.track``; raises LandmarkError when the file is missing or of another video."""
        path = landmark_file(self._folder, clip)
        if path is None:
            missing = self._folder / f"{clip}{SUFFIXES[0]}"
            raise LandmarkError(f"{missing}: does not exist, nor .npy or .npz; make landmarks of this clip")
        rows = read_landmarks(path)
        stretch, frames = np.ones(2, np.float32), 0
        for stored in reader.stored_frames():
            if frames == 0:
                stretch = reader.placed(stored, gray=True)[1].ratio.astype(np.float32)
            frames += 1
        start = 0.0 if reader.span is None else reader.span[0]
        wanted = (start + np.arange(frames) / reader.fps) * reader.source_fps
        _check_length(path, len(rows), reader, (start + frames / reader.fps) * reader.source_fps)
        track = Track()
        for frame, row in enumerate(np.minimum(np.round(wanted).astype(int), len(rows) - 1)):
            points = rows[row]
            if points is not None:
                track.add(frame, np.concatenate([points[:, :2] * stretch, points[:, 2:]], axis=1))
        return Faces([track] if len(track) else [], frames, range(frames))


def landmark_file(folder: Path, clip: str) -> Path | None:
    """The file of a clip, or of the entire video that it is a part of; None if there is none."""
    paths = (folder / f"{clip}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _check_length(path: Path, rows: int, reader: VideoReader, end: float) -> None:
    """Raise LandmarkError unless the video has as many frames as rows; the clip needs the first ``end``."""
    frames = end if reader.span is None else max(end, reader.source_frames)
    tolerated = TOLERATED_ROWS + 0.01 * frames
    # Not every container states how many frames follow a part.
    known = reader.span is None or reader.source_frames
    if end - rows > tolerated or (known and rows - frames > tolerated):
        raise LandmarkError(
            f"{path}: holds landmarks of {rows} frames, {reader.path} has about {frames:.0f}; "
            "make them from the entire video, at its own frame rate"
        )


def read_landmarks(path: Path) -> list[Floats | None]:
    """Points ``[P, 2 or 3]`` of each frame, None without a face; raises LandmarkError for other files."""
    try:
        landmarks = [_points(row) for row in _rows(path)]
    except Exception as error:  # a foreign file can break its reader in any way
        raise LandmarkError(
            f"{path}: holds no landmarks ({error}); needed is an array [68, 2] or None for each frame"
        ) from error
    if not landmarks:
        raise LandmarkError(f"{path}: is empty; make the landmarks again")
    sizes = {len(points) for points in landmarks if points is not None}
    if len(sizes) > 1:
        raise LandmarkError(f"{path}: mixes faces of {sorted(sizes)} points; make the landmarks again")
    return landmarks


def _rows(path: Path) -> Iterable[Any]:
    if path.suffix == ".npy":
        return np.array(mapped_array(path))
    if path.suffix == ".npz":
        arrays = zipped_arrays(path)
        if len(arrays) != 1 and "data" not in arrays:
            raise ValueError(f"arrays {', '.join(arrays)} instead of one")
        return arrays.get("data", next(iter(arrays.values())))
    with path.open("rb") as file:
        rows = StrictUnpickler(file, ARRAYS).load()
    if not isinstance(rows, list | tuple | np.ndarray):
        raise ValueError(f"a {type(rows).__name__} instead of a list")
    return rows


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
