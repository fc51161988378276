"""Layers on disk: what a folder of `av-ssl features` holds.

    FOLDER/settings.json            digest of the weights, layers, channels C, rate in Hz, dtype, format, ...
    FOLDER/{subset}.tsv             manifest of the clips
    FOLDER/{subset}.index.tsv       a line a clip: id, its first row, its number of rows n (frames)
    FOLDER/{subset}.npy             [N, L, C], clips one after another; np.load(..., mmap_mode="r") maps it
    FOLDER/{subset}.times.npy       float32 [N], seconds: the centre of each frame in its clip
    FOLDER/{subset}/{id}.npz        or, as asked for, a file a clip: features [n, L, C], times [n], layers [L]

Row k of a clip is taken at (k + 1/2) / rate seconds, the middle of the k-th video frame at 25 Hz.  What a
layer looks at reaches further; the convolutions of speech models at 50 Hz are centred a few ms later.

From clips to a folder of layers: shards, each whole or not there, then joined.

A killed run goes on where it was, other settings are refused; `av_ssl.analysis.features` lists the
files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.inference import LayerSource
from av_ssl.io import atomic_file, digest, growing_array, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import ClusterOptions, Stage, StageRunner
from av_ssl.layout import Clip, manifest_part, read_manifest
from av_ssl.targets.feature_shards import (
    DumpJob,
    FeatureShard,
    dump_shard,
    is_complete,
    remove_shards,
    shard_count,
    shards_of,
)

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


FORMATS = ("npy", "npz")


@dataclass(frozen=True)
class FeaturePlan:
    """What is to be made.

    Args:
        data: folder with `{subset}.tsv`.
        out: folder for the features.
        subsets: of the data.
        source: model and layers.
        clips: so many of each subset, evenly spread over its list; None: all.
        shards: of each subset; None: one for every 1000 clips, at least 16.
        dtype: `float32` or `float16`.
        form: `npy`, one array a subset, or `npz`, one file a clip.
    """

    data: Path
    out: Path
    subsets: tuple[str, ...]
    source: LayerSource
    clips: int | None = None
    shards: int | None = None
    dtype: str = "float32"
    form: str = "npy"


class FeatureMaker:
    """Makes what a plan asks for and is not there yet.

    Args:
        plan: what to make.
        cluster: where shards run.
        stage: told what begins and how far it is.

    Attributes:
        settings: what is kept in `settings.json`.

    Raises DataError when a manifest cannot be used, a clip lacks a stream, the model cannot be loaded or
    lacks a layer, or `plan.out` holds features that were made in another way.
    """

    def __init__(self, plan: FeaturePlan, cluster: ClusterOptions, stage: Stage) -> None:
        self.plan = plan
        self.work = StageRunner(cluster, plan.out / "logs", stage)
        chosen = {subset: self._choose(subset) for subset in plan.subsets}
        self.settings = {**plan.source.settings(), "dtype": plan.dtype, "format": plan.form}
        for subset, clips in chosen.items():
            self._check_streams(subset, clips)
        keep_settings(plan.out / SETTINGS, self.settings, f"delete {plan.out}, or choose another --out")
        remove_abandoned(plan.out)
        self.jobs = {subset: self._jobs(subset, clips) for subset, clips in chosen.items()}

    def run(self) -> dict[str, tuple[int, int, list[str]]]:
        """Make what is missing; returns clips, frames, and ids without any, by subset."""
        plan = self.plan
        for subset, jobs in self.jobs.items():
            if (plan.out / f"{subset}{INDEX}").exists():
                continue
            clips = read_manifest(jobs[0].manifest)
            todo = [job for job in jobs if not is_complete(job, clips)]
            self.work(f"layers of {subset}", dump_shard, todo, len(jobs))
            self._join(subset, clips)
        shutil.rmtree(plan.out / "logs", ignore_errors=True)
        return {subset: self._summary(subset) for subset in plan.subsets}

    # -- helpers ---------------------------------------------------------------------------------------------

    def _choose(self, subset: str) -> list[Clip]:
        clips, wanted = read_manifest(self.plan.data / f"{subset}.tsv"), self.plan.clips
        if wanted is None or wanted >= len(clips):
            return clips
        return [clips[number] for number in np.arange(wanted) * len(clips) // wanted]

    def _check_streams(self, subset: str, clips: list[Clip]) -> None:
        for clip in clips:
            for stream in self.settings["streams"]:
                if getattr(clip, stream) is None:
                    raise DataError(
                        f"{self.plan.data / f'{subset}.tsv'}, line {clip.line}: clip {clip.id} has no "
                        f"{stream}, which the model is given; fill in the column, or name other --modalities"
                    )

    def _jobs(self, subset: str, clips: list[Clip]) -> list[DumpJob]:
        plan, manifest = self.plan, self.plan.out / f"{subset}.tsv"
        count = shard_count(len(clips), plan.shards)
        text = manifest_part(plan.data / f"{subset}.tsv", clips).encode()
        if not manifest.exists():
            write_atomically(manifest, text)
        if manifest.read_bytes() != text:
            raise DataError(
                f"{manifest}: lists other clips than are asked for now; delete {plan.out}, or choose another "
                "--out"
            )
        folder = plan.out / "shards"
        if not (plan.out / f"{subset}{INDEX}").exists():
            mend = f"delete {folder}, or choose another --out"
            keep_settings(folder / f"{subset}.json", {"manifest": digest(manifest), "shards": count}, mend)
        bad_clips = plan.out / f"bad_clips.{subset}.tsv"
        return [
            DumpJob(shard, manifest, plan.source, bad_clips, plan.dtype)
            for shard in shards_of(folder, subset, count)
        ]

    def _join(self, subset: str, clips: list[Clip]) -> None:
        """Bring the shards of a subset into the form that is asked for; the index comes last."""
        plan, shards = self.plan, [job.shard for job in self.jobs[subset]]
        frames = self._frames(shards)
        if plan.form == "npz":
            counts = [self._write_npz(subset, clip, x) for clip, x in zip(clips, frames, strict=True)]
        else:
            shape = (len(self.settings["layers"]), self.settings["channels"])
            counts = []
            with growing_array(plan.out / f"{subset}.npy", shape, plan.dtype) as append:
                for x in frames:
                    append(x)
                    counts.append(len(x))
            with atomic_file(plan.out / f"{subset}.times.npy") as file:
                np.save(file, np.concatenate([frame_times(n, self.settings["rate"]) for n in counts]))
        firsts = np.cumsum(counts) - counts
        rows = zip(clips, firsts, counts, strict=True)
        index = "".join(f"{clip.id}\t{first}\t{count}\n" for clip, first, count in rows)
        write_atomically(plan.out / f"{subset}{INDEX}", index.encode())
        remove_shards(plan.out / "shards", shards)

    def _frames(self, shards: list[FeatureShard]) -> Iterator[Floats]:
        """`[n, L, C]` of each clip, in the order of the manifest."""
        for shard in shards:
            frames, lengths = shard.read()
            starts = np.cumsum(lengths) - lengths
            for start, length in zip(starts, lengths, strict=True):
                part = frames[start : start + length]
                yield part.reshape(length, len(self.settings["layers"]), self.settings["channels"])

    def _write_npz(self, subset: str, clip: Clip, frames: Floats) -> int:
        if len(frames):
            times = frame_times(len(frames), self.settings["rate"])
            with atomic_file(npz_file(self.plan.out, subset, clip.id)) as file:
                np.savez(file, features=frames, times=times, layers=np.array(self.settings["layers"]))
        return len(frames)

    def _summary(self, subset: str) -> tuple[int, int, list[str]]:
        lines = (self.plan.out / f"{subset}{INDEX}").read_text(encoding="utf-8").splitlines()
        rows: list[Any] = [line.split("\t") for line in lines]
        return len(rows), sum(int(row[2]) for row in rows), [row[0] for row in rows if row[2] == "0"]
