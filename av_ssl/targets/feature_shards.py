"""Features of a split on disk, in shards that are made independently of each other.

Names and layout are those of AV-HuBERT's and HuBERT's tools: `{split}_{rank}_{count}.npy` holds the frames of
all clips of a shard one after another, `.len` their number a clip, a line each, `.sha256` the checksum of the
`.npy` file as sha256sum writes it; shard `rank` of `count` is a range of the manifest.  The `.len` file is
written last, so that it says that the shard is complete.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.dataset import BadClips
from av_ssl.data.reading import mapped_array
from av_ssl.errors import DataError, MediaError
from av_ssl.io import digest, growing_array, write_atomically
from av_ssl.layout import Clip, read_manifest

Frames = NDArray[np.float32]


class FrameFeatures(Protocol):
    """What turns a clip into features."""

    dim: int
    """Channels D."""

    def of(self, clip: Clip) -> Frames:
        """Features `[n, D]` of a whole clip; raises MediaError when it cannot be read."""


class FeatureSource(Protocol):
    """Says which features; small, so that it can be sent to other processes."""

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have."""

    @property
    def rate(self) -> int:
        """Frames a second."""

    def settings(self) -> dict[str, Any]:
        """What decides the features' values."""

    def open(self, rank: int = 0) -> FrameFeatures:
        """The features, the model loaded once a process; `rank` chooses among several GPUs."""


def device_of(device: str, rank: int = 0) -> str:
    """A device of torch for `cpu`, `cuda` or `auto` (a GPU if there is one); GPUs take turns by `rank`.

    Raises DataError for `cuda` if there is no GPU.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    return f"cuda:{rank % torch.cuda.device_count()}"


Lengths = NDArray[np.int64]

CLIPS_A_SHARD = 1000
LEAST_SHARDS = 16


@dataclass(frozen=True)
class FeatureShard:
    """Shard `rank` (from 0) of `count` of a split; its files lie in `folder`."""

    folder: Path
    split: str
    rank: int
    count: int

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        return f"{self.split}_{self.rank}_{self.count}"

    @property
    def features(self) -> Path:
        """Frames of all its clips, `[N, D]`."""
        return self.folder / f"{self.stem}.npy"

    @property
    def lengths(self) -> Path:
        """Frames of each clip."""
        return self.folder / f"{self.stem}.len"

    @property
    def checksum(self) -> Path:
        """Of `features`."""
        return self.folder / f"{self.stem}.sha256"

    def checksum_line(self) -> str:
        """What `checksum` must hold; reads all of `features`."""
        return f"{digest(self.features)}  {self.features.name}\n"

    def range(self, clips: int) -> slice:
        """Its part of a manifest of so many clips."""
        size = math.ceil(clips / self.count)
        return slice(min(clips, self.rank * size), min(clips, (self.rank + 1) * size))

    def read_lengths(self) -> Lengths:
        """Frames of each clip `[clips]`; 0 for one that could not be read."""
        return np.array(self.lengths.read_text().split(), np.int64)

    def read(self) -> tuple[NDArray[Any], Lengths]:
        """Frames `[N, D]`, mapped from the file, and lengths; raises DataError when they do not fit."""
        lengths = self.read_lengths()
        try:
            frames = mapped_array(self.features)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.features}: cannot be read ({error}); delete {self.lengths}") from error
        if frames.ndim != 2 or len(frames) != lengths.sum():
            raise DataError(
                f"{self.features}: is of shape {frames.shape}, {self.lengths} says {lengths.sum()} frames; "
                "delete both, and the same command makes them again"
            )
        return frames, lengths


def shard_count(clips: int, wanted: int | None) -> int:
    """Shards of a split of so many clips, if no other number is wanted; it does not depend on the machine."""
    return min(clips, wanted or max(LEAST_SHARDS, math.ceil(clips / CLIPS_A_SHARD)))


def shards_of(folder: Path, split: str, count: int) -> list[FeatureShard]:
    """All shards of a split, in manifest order."""
    return [FeatureShard(folder, split, rank, count) for rank in range(count)]


def remove_shards(folder: Path, shards: Sequence[FeatureShard]) -> None:
    """Delete shards and their settings, and `folder` with the last of them."""
    for shard in shards:
        shard.lengths.unlink(missing_ok=True)
        shard.features.unlink(missing_ok=True)
        shard.checksum.unlink(missing_ok=True)
        (folder / f"{shard.split}.json").unlink(missing_ok=True)
    if shards and not any(folder.glob("*.npy")):
        (folder / "settings.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the user has put something else there
            folder.rmdir()


@dataclass(frozen=True)
class DumpJob:
    """One shard to be made.

    Args:
        shard: where to.
        manifest: of the split.
        spec: the features.
        bad_clips: lists clips that cannot be read, shared by all shards of the split.
        dtype: `float32`, or `float16` for half the disk space.
    """

    shard: FeatureShard
    manifest: Path
    spec: FeatureSource
    bad_clips: Path
    dtype: str = "float32"


def is_complete(job: DumpJob, clips: list[Clip]) -> bool:
    """Whether the shard is made; no longer so if one of its clips was bad and is off the list of bad ones."""
    if not job.shard.lengths.is_file() or not job.shard.features.is_file():
        return False
    own = clips[job.shard.range(len(clips))]
    lengths = job.shard.read_lengths()
    if len(lengths) != len(own):
        return False
    empty = {clip.id for clip, length in zip(own, lengths, strict=True) if not length}
    if not empty:
        return True
    return job.bad_clips.is_file() and empty <= {
        line.partition("\t")[0] for line in job.bad_clips.read_text(encoding="utf-8").splitlines()
    }


def dump_shard(job: DumpJob) -> int:
    """Make one shard; returns its number of frames.

    A clip that cannot be read has no frames and is written down.  Raises DataError when these are more than
    1 % of the split, or features are not finite.
    """
    clips = read_manifest(job.manifest)
    bad = BadClips(job.bad_clips, {clip.id for clip in clips})
    features = job.spec.open(job.shard.rank)
    lengths = []
    with one_thread(), growing_array(job.shard.features, features.dim, job.dtype) as append:
        for clip in clips[job.shard.range(len(clips))]:
            frames: NDArray[Any] = _features_of(clip, features, bad).astype(job.dtype)
            if not np.isfinite(frames).all():
                raise DataError(
                    f"clip {clip.id} ({job.manifest}, line {clip.line}): its features are not finite numbers "
                    f"in {job.dtype}; check the checkpoint, or store float32"
                )
            append(frames)
            lengths.append(len(frames))
    write_atomically(job.shard.checksum, job.shard.checksum_line().encode())
    write_atomically(job.shard.lengths, "".join(f"{length}\n" for length in lengths).encode())
    return sum(lengths)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work in one thread: shards are the parallelism, and more threads may round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _features_of(clip: Clip, features: FrameFeatures, bad: BadClips) -> NDArray[np.float32]:
    try:
        return features.of(clip)
    except MediaError as error:
        bad.record(clip, error)
        return np.zeros((0, features.dim), np.float32)
