"""Features on disk: the folders of ``av-ssl features``, written and read.

    FOLDER/settings.json            digest of the weights, layers, channels C, rate in Hz, dtype, format, ...
    FOLDER/{subset}.tsv             manifest of the clips
    FOLDER/{subset}.index.tsv       one line a clip: id, its first row, its number of rows n (frames)
    FOLDER/{subset}.npy             [N, L, C], clips one after another; np.load(..., mmap_mode="r") maps it
    FOLDER/{subset}.times.npy       float32 [N], seconds: the centre of each frame in its clip
    FOLDER/{subset}/{id}.npz        or, if chosen, one file a clip: features [n, L, C], times [n], layers [L]

Row k of a clip is taken at (k + 1/2) / rate seconds, the middle of the k-th video frame at 25 Hz.  The
receptive field of a layer is longer; the convolutions of speech models at 50 Hz are centred a few ms later.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.io import (
    atomic_file,
    digest,
    growing_array,
    keep_settings,
    mapped_array,
    read_json,
    read_text,
    remove_abandoned,
    write_atomically,
    zipped_arrays,
)
from av_ssl.jobs import HERE, JobOptions
from av_ssl.manifest import Clip, check_streams, manifest_part, read_manifest
from av_ssl.targets.feature_shards import FeatureShard, FeatureSource, SplitFeatures, remove_shards

SETTINGS = "settings.json"
INDEX = ".index.tsv"

Floats = NDArray[np.floating[Any]]


# -- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Where the frames of a clip are in the array of its subset."""

    subset: str
    first: int
    count: int


class FeatureFolder:
    """Reads a folder of ``av-ssl features``; of ``subsets``, or of all that are finished.

    Attributes:
        layers: their numbers, in the order of the arrays.
        rate: frames a second.
        clips: rows of each clip by id, without those that could not be read.

    Raises:
        DataError: the folder holds no features, or is damaged.
    """

    def __init__(self, path: Path, subsets: Sequence[str] | None = None) -> None:
        self.path = path
        self.settings = _read_settings(path)
        self.layers: list[int] = [int(layer) for layer in self.settings["layers"]]
        self.rate = float(self.settings["rate"])
        found = sorted(file.name.removesuffix(INDEX) for file in path.glob(f"*{INDEX}"))
        self.clips: dict[str, Rows] = {}
        self._totals: dict[str, int] = {}  # rows of each subset; subsets may share clips
        for subset in found if subsets is None else subsets:
            if subset not in found:
                raise DataError(f"{path}: holds no features of {subset}, but of {', '.join(found) or 'none'}")
            rows = read_index(path / f"{subset}{INDEX}", subset)
            self.clips.update({clip: own for clip, own in rows.items() if own.count})
            self._totals[subset] = sum(own.count for own in rows.values())
        if not self.clips:
            raise DataError(f"{path}: holds no features of any clip; make them with av-ssl features")
        self._mapped: dict[str, Floats] = {}

    def features(self, clip: str) -> Floats:
        """``[n, L, C]`` of a clip; raise DataError if its file is missing or damaged."""
        rows = self.clips[clip]
        if self.settings["format"] == "npz":
            return self._read(npz_file(self.path, rows.subset, clip), rows.count)
        if rows.subset not in self._mapped:
            array = self.path / f"{rows.subset}.npy"
            self._mapped[rows.subset] = self._read(array, self._totals[rows.subset])
        return self._mapped[rows.subset][rows.first : rows.first + rows.count]

    def times(self, clip: str) -> NDArray[np.float32]:
        """Centres of a clip's frames in seconds ``[n]``."""
        return frame_times(self.clips[clip].count, self.rate)

    def _read(self, path: Path, count: int) -> Floats:
        try:
            frames = zipped_arrays(path)["features"] if path.suffix == ".npz" else mapped_array(path)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); make the folder again") from error
        wanted = (count, len(self.layers), self.settings["channels"])
        if frames.shape != wanted:
            raise DataError(f"{path}: has shape {frames.shape}, not {wanted}; make the folder again")
        return frames


def frame_times(count: int, rate: float) -> NDArray[np.float32]:
    """Centres of frames in seconds ``[n]``."""
    return ((np.arange(count) + 0.5) / rate).astype(np.float32)


def npz_file(folder: Path, subset: str, clip: str) -> Path:
    """A clip's own file; raise DataError for an id that leads out of the folder."""
    if Path(clip).is_absolute() or ".." in Path(clip).parts:
        raise DataError(f"clip {clip}: its id cannot be a file name; use --format npy")
    return folder / subset / f"{clip}.npz"


def read_index(path: Path, subset: str) -> dict[str, Rows]:
    """Rows of the clips of a subset by id; raise DataError if the file is damaged."""
    clips = {}
    for number, line in enumerate(read_text(path, "make the folder again").splitlines(), start=1):
        clip, *numbers = line.split("\t")
        try:
            first, count = map(int, numbers)
        except ValueError:
            raise DataError(
                f"{path}, line {number}: is not id, first row, number of rows; make the folder again"
            ) from None
        clips[clip] = Rows(subset, first, count)
    return clips


def _read_settings(path: Path) -> dict[str, Any]:
    settings = read_json(path / SETTINGS, "make the folder with av-ssl features")
    missing = [key for key in ("layers", "rate", "channels", "format") if key not in settings]
    if missing:
        raise DataError(f"{path / SETTINGS}: lacks {', '.join(missing)}; is it a folder of av-ssl features?")
    return settings


# -- writing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeaturePlan:
    """Features to be stored.

    Args:
        data: folder with ``{subset}.tsv``.
        out: folder for the features.
        subsets: of the data.
        source: model and layers; its settings hold ``layers``, ``channels``, ``rate`` and ``streams``.
        clips: this many of each subset, evenly spread over its list; None: all.
        shards: of each subset; None: one for every 1000 clips, at least 16.
        dtype: ``float32`` or ``float16``.
        form: ``npy``, one array a subset, or ``npz``, one file a clip.
    """

    data: Path
    out: Path
    subsets: tuple[str, ...]
    source: FeatureSource
    clips: int | None = None
    shards: int | None = None
    dtype: str = "float32"
    form: str = "npy"


Summary = tuple[int, int, list[str]]
"""Of a subset: clips, frames, and ids of the clips without frames, which cannot be read."""


def store_features(plan: FeaturePlan, where: JobOptions = HERE) -> tuple[dict[str, Any], dict[str, Summary]]:
    """Store the features of a plan, as far as they are not there yet.

    A run that was killed continues where it stopped: shards are complete or not there, and are joined at the
    end.

    Returns:
        Settings of the folder, and a summary of each subset.

    Raises:
        DataError: a manifest or the model cannot be used, a clip lacks a stream, too many clips cannot be
            read, or the folder holds features that were made with other settings.
    """
    chosen = {subset: _choose(plan, subset) for subset in plan.subsets}
    settings = {**plan.source.settings(), "dtype": plan.dtype, "format": plan.form}
    for subset, clips in chosen.items():
        fix = "fill in the column, or choose other --modalities"
        check_streams(plan.data / f"{subset}.tsv", clips, settings["streams"], fix)
    keep_settings(plan.out / SETTINGS, settings, f"delete {plan.out}, or choose another --out")
    remove_abandoned(plan.out)
    for subset, clips in chosen.items():
        _keep_manifest(plan, subset, clips)
    splits = [_split(plan, subset) for subset in plan.subsets if not (plan.out / f"{subset}{INDEX}").exists()]
    for split in splits:
        split.apply_settings(f"delete {split.folder}, or choose another --out")
    for split in splits:
        split.make(where, plan.out / "logs")
        _join(plan, split, settings)
        remove_shards(split.shards)
    shutil.rmtree(plan.out / "logs", ignore_errors=True)
    return settings, {subset: _summary(plan.out, subset) for subset in plan.subsets}


def _choose(plan: FeaturePlan, subset: str) -> list[Clip]:
    clips = read_manifest(plan.data / f"{subset}.tsv")
    if plan.clips is None or plan.clips >= len(clips):
        return clips
    return [clips[number] for number in np.arange(plan.clips) * len(clips) // plan.clips]


def _keep_manifest(plan: FeaturePlan, subset: str, clips: Sequence[Clip]) -> None:
    """Write the list of clips, or refuse to mix it with another one."""
    manifest = plan.out / f"{subset}.tsv"
    text = manifest_part(plan.data / f"{subset}.tsv", clips).encode()
    if not manifest.exists():
        write_atomically(manifest, text)
    if manifest.read_bytes() != text:
        raise DataError(
            f"{manifest}: lists other clips than the command; delete {plan.out}, or choose another --out"
        )


def _split(plan: FeaturePlan, subset: str) -> SplitFeatures:
    path, folder = plan.out / f"{subset}.tsv", plan.out / "shards"
    clips = read_manifest(path)
    return SplitFeatures(path, digest(path), clips, plan.source, folder, plan.out, plan.dtype, plan.shards)


def _join(plan: FeaturePlan, split: SplitFeatures, settings: Mapping[str, Any]) -> None:
    """Write the arrays of a subset in the chosen format; the index comes last."""
    subset, clips = split.manifest.stem, split.clips
    layers, rate = settings["layers"], settings["rate"]
    shape = (len(layers), settings["channels"])
    frames = _frames(split.shards, shape)
    counts = []
    if plan.form == "npz":
        for clip, x in zip(clips, frames, strict=True):
            counts.append(len(x))
            if len(x):
                with atomic_file(npz_file(plan.out, subset, clip.id)) as file:
                    np.savez(file, features=x, times=frame_times(len(x), rate), layers=np.array(layers))
    else:
        with growing_array(plan.out / f"{subset}.npy", shape, plan.dtype) as append:
            for x in frames:
                append(x)
                counts.append(len(x))
        with atomic_file(plan.out / f"{subset}.times.npy") as file:
            np.save(file, np.concatenate([frame_times(n, rate) for n in counts]))
    firsts = np.cumsum(counts) - counts
    rows = zip(clips, firsts, counts, strict=True)
    index = "".join(f"{clip.id}\t{first}\t{count}\n" for clip, first, count in rows)
    write_atomically(plan.out / f"{subset}{INDEX}", index.encode())


def _frames(shards: Sequence[FeatureShard], shape: tuple[int, int]) -> Iterator[Floats]:
    """``[n, L, C]`` of each clip, in the order of the manifest."""
    for shard in shards:
        frames, lengths = shard.read()
        starts = np.cumsum(lengths) - lengths
        for start, length in zip(starts, lengths, strict=True):
            yield frames[start : start + length].reshape(length, *shape)


def _summary(out: Path, subset: str) -> Summary:
    rows = read_index(out / f"{subset}{INDEX}", subset)
    frames = sum(own.count for own in rows.values())
    return len(rows), frames, [clip for clip, own in rows.items() if not own.count]
