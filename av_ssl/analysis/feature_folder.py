"""Layers on disk: what a folder of `av-ssl features` holds.

    FOLDER/settings.json            digest of the weights, layers, channels C, rate in Hz, dtype, format, ...
    FOLDER/{subset}.tsv             manifest of the clips
    FOLDER/{subset}.index.tsv       a line a clip: id, its first row, its number of rows n (frames)
    FOLDER/{subset}.npy             [N, L, C], clips one after another; np.load(..., mmap_mode="r") maps it
    FOLDER/{subset}.times.npy       float32 [N], seconds: the centre of each frame in its clip
    FOLDER/{subset}/{id}.npz        or, as asked for, a file a clip: features [n, L, C], times [n], layers [L]

Row k of a clip is taken at (k + 1/2) / rate seconds, the middle of the k-th video frame at 25 Hz.  What a
layer looks at reaches further; the convolutions of speech models at 50 Hz are centred a few ms later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError

SETTINGS = "settings.json"
INDEX = ".index.tsv"

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Rows:
    """Where the frames of a clip lie."""

    subset: str
    first: int
    count: int


def frame_times(count: int, rate: float) -> NDArray[np.float32]:
    """Centres of frames in seconds `[n]`."""
    return ((np.arange(count) + 0.5) / rate).astype(np.float32)


class FeatureFolder:
    """Reads a folder of `av-ssl features`.

    Args:
        path: of the folder.
        subsets: which; None: all that are finished.

    Attributes:
        layers: their numbers, in the order of the arrays.
        rate: frames a second.
        clips: rows of each clip by id, without those that could not be read.

    Raises DataError when the folder holds none, or is damaged.
    """

    def __init__(self, path: Path, subsets: Sequence[str] | None = None) -> None:
        self.path = path
        self.settings = _read_settings(path)
        self.layers: list[int] = [int(layer) for layer in self.settings["layers"]]
        self.rate = float(self.settings["rate"])
        found = sorted(file.name.removesuffix(INDEX) for file in path.glob(f"*{INDEX}"))
        self.clips: dict[str, Rows] = {}
        for subset in found if subsets is None else subsets:
            if subset not in found:
                raise DataError(f"{path}: holds no features of {subset}, but of {', '.join(found) or 'none'}")
            self.clips.update(read_index(path / f"{subset}{INDEX}", subset))
        if not self.clips:
            raise DataError(f"{path}: holds no features of any clip; av-ssl features makes them")
        self._mapped: dict[str, Floats] = {}

    def features(self, clip: str) -> Floats:
        """`[n, L, C]` of a clip; raises DataError when its file is missing or damaged."""
        rows = self.clips[clip]
        if self.settings["format"] == "npz":
            return self._read(npz_file(self.path, rows.subset, clip), rows.count)
        if rows.subset not in self._mapped:
            total = sum(other.count for other in self.clips.values() if other.subset == rows.subset)
            self._mapped[rows.subset] = self._read(self.path / f"{rows.subset}.npy", total)
        return self._mapped[rows.subset][rows.first : rows.first + rows.count]

    def times(self, clip: str) -> NDArray[np.float32]:
        """Centres of a clip's frames in seconds `[n]`."""
        return frame_times(self.clips[clip].count, self.rate)

    def _read(self, path: Path, count: int) -> Floats:
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    frames = file["features"]
            else:
                frames = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"{path}: cannot be read ({error}); make the folder again") from error
        wanted = (count, len(self.layers), self.settings["channels"])
        if frames.shape != wanted:
            raise DataError(f"{path}: is of shape {frames.shape}, not {wanted}; make the folder again")
        return frames


def npz_file(folder: Path, subset: str, clip: str) -> Path:
    """Where a clip's own file lies; raises DataError for an id that leads out of the folder."""
    if Path(clip).is_absolute() or ".." in Path(clip).parts:
        raise DataError(f"clip {clip}: its id cannot be a file name; take --format npy")
    return folder / subset / f"{clip}.npz"


def read_index(path: Path, subset: str) -> dict[str, Rows]:
    """Rows of the clips of a subset that have some, by id; raises DataError when the file is damaged."""
    clips = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        clip, *numbers = line.split("\t")
        try:
            first, count = map(int, numbers)
        except ValueError:
            raise DataError(
                f"{path}, line {number}: needed are id, first row and number of rows, with tabs between; "
                "make the folder again"
            ) from None
        if count:
            clips[clip] = Rows(subset, first, count)
    return clips


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        missing = [key for key in ("layers", "rate", "channels", "format") if key not in settings]
    except OSError as error:
        raise DataError(
            f"{path / SETTINGS}: cannot be read ({error.strerror}); av-ssl features makes such folders"
        ) from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path / SETTINGS}: is damaged ({error}); make the folder again") from error
    if missing:
        raise DataError(f"{path / SETTINGS}: lacks {', '.join(missing)}; is it a folder of av-ssl features?")
    return dict(settings)
