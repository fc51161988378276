"""Features of a split on disk, in shards that are made independently of each other.

Names and layout are those of AV-HuBERT's and HuBERT's tools.  Shard ``rank`` of ``count`` is a range of the
manifest:

    {split}_{rank}_{count}.npy       frames of all its clips, one after another
    {split}_{rank}_{count}.len       number of frames of each clip, one a line; 0 for an unreadable clip
    {split}_{rank}_{count}.sha256    checksum of the .npy file, as sha256sum writes it

The ``.len`` file is written last: it shows that the shard is complete.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.dataset import BadClips
from av_ssl.device import torch_threads
from av_ssl.errors import DataError, MediaError
from av_ssl.io import digest, growing_array, keep_settings, mapped_array, read_text, write_atomically
from av_ssl.jobs import JobOptions, run_missing
from av_ssl.manifest import Clip, read_manifest

Lengths = NDArray[np.int64]

# -- sources -------------------------------------------------------------------------------------------------


class FrameFeatures(Protocol):
    """Computes features of clips."""

    @property
    def dim(self) -> int:
        """Channels D."""

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Features ``[n, D]`` of a clip, computed alone; raise MediaError if the clip cannot be read."""


class FeatureSource(Protocol):
    """Which features of which model; small, so that it can be sent to other processes.

    All members but :meth:`open` work on a machine without a GPU and raise DataError if the model cannot be
    loaded or lacks a layer.
    """

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that every clip needs, of ``audio`` and ``video``."""

    @property
    def rate(self) -> int:
        """Frames a second."""

    def settings(self) -> dict[str, Any]:
        """What decides the features, for a settings file; a checkpoint counts by its content."""

    def open(self, rank: int = 0) -> FrameFeatures:
        """The model on its device, loaded once a process; ``rank`` chooses among several GPUs."""


# -- files ---------------------------------------------------------------------------------------------------

CLIPS_A_SHARD = 1000
LEAST_SHARDS = 16


@dataclass(frozen=True)
class FeatureShard:
    """Shard ``rank`` (from 0) of ``count`` of a split; its files lie in ``folder``."""

    folder: Path
    split: str
    rank: int
    count: int

    @property
    def stem(self) -> str:
        return f"{self.split}_{self.rank}_{self.count}"

    @property
    def features(self) -> Path:
        return self.folder / f"{self.stem}.npy"

    @property
    def lengths(self) -> Path:
        return self.folder / f"{self.stem}.len"

    @property
    def checksum(self) -> Path:
        return self.folder / f"{self.stem}.sha256"

    def checksum_line(self) -> str:
        return f"{digest(self.features)}  {self.features.name}\n"

    def range(self, clips: int) -> slice:
        """Its part of a manifest of this many clips."""
        size = math.ceil(clips / self.count)
        return slice(min(clips, self.rank * size), min(clips, (self.rank + 1) * size))

    def read_lengths(self) -> Lengths:
        """Frames of each clip; DataError if the file is damaged."""
        fix = "delete it and run the same command again"
        lines = read_text(self.lengths, fix).split()
        if not all(line.isascii() and line.isdecimal() and len(line) < 10 for line in lines):
            raise DataError(f"{self.lengths}: is damaged, it holds more than numbers of frames; {fix}")
        return np.array(lines, np.int64)

    def read(self) -> tuple[NDArray[Any], Lengths]:
        """Frames ``[N, D]``, memory-mapped, and lengths; raise DataError if the two files do not agree."""
        lengths = self.read_lengths()
        try:
            frames = mapped_array(self.features)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.features}: cannot be read ({error}); delete {self.lengths}") from error
        if frames.ndim != 2 or len(frames) != lengths.sum():
            raise DataError(
                f"{self.features}: has shape {frames.shape}, {self.lengths} lists {lengths.sum()} frames; "
                "delete both and run the same command again"
            )
        return frames, lengths


def remove_shards(shards: Sequence[FeatureShard]) -> None:
    """Delete shards and their settings, and their folder with the last of them."""
    for shard in shards:
        for path in (shard.lengths, shard.features, shard.checksum, shard.folder / f"{shard.split}.json"):
            path.unlink(missing_ok=True)
    for folder in {shard.folder for shard in shards}:
        if not any(folder.glob("*.npy")):
            (folder / "settings.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the user keeps something else there
                folder.rmdir()


# -- making them ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitFeatures:
    """Features of a split, to be stored in shards.

    Their number is ``wanted``, or one for every 1000 clips and at least 16.  It does not depend on the
    machine, since a run may continue on another one.

    Args:
        manifest, digest, clips: ``{split}.tsv``, its digest and content.
        source: the features.
        folder: for the shards and their settings ``{split}.json``.
        out: folder for the list of clips that cannot be read.
        dtype: ``float32``, or ``float16`` for half the disk space.
        wanted: number of shards; None: see above.
    """

    manifest: Path
    digest: str
    clips: Sequence[Clip]
    source: FeatureSource
    folder: Path
    out: Path
    dtype: str = "float32"
    wanted: int | None = None

    @property
    def shards(self) -> tuple[FeatureShard, ...]:
        clips = len(self.clips)
        count = min(clips, self.wanted or max(LEAST_SHARDS, math.ceil(clips / CLIPS_A_SHARD)))
        return tuple(FeatureShard(self.folder, self.manifest.stem, rank, count) for rank in range(count))

    @property
    def jobs(self) -> list[DumpJob]:
        bad_clips = self.out / f"bad_clips.{self.manifest.stem}.tsv"
        return [DumpJob(shard, self.manifest, self.source, bad_clips, self.dtype) for shard in self.shards]

    def is_complete(self, job: DumpJob) -> bool:
        """Whether a shard is made.

        It is made again if one of its clips was bad and has been removed from the list of bad clips.
        """
        shard = job.shard
        if not shard.lengths.is_file() or not shard.features.is_file():
            return False
        own = self.clips[shard.range(len(self.clips))]
        lengths = shard.read_lengths()
        if len(lengths) != len(own):
            return False
        empty = {clip.id for clip, length in zip(own, lengths, strict=True) if not length}
        if not empty:
            return True
        return job.bad_clips.is_file() and empty <= {
            line.partition("\t")[0]
            for line in read_text(job.bad_clips, "delete it and run the same command again").splitlines()
        }

    def missing_clips(self) -> list[Clip]:
        todo = [job.shard.range(len(self.clips)) for job in self.jobs if not self.is_complete(job)]
        return [clip for part in todo for clip in self.clips[part]]

    def apply_settings(
        self, fix: str, apply: Callable[[Path, dict[str, Any], str], None] = keep_settings
    ) -> None:
        """Note what the shards are made of, or compare it; see :func:`av_ssl.io.keep_settings`."""
        settings = {"manifest": self.digest, "shards": len(self.shards)}
        apply(self.folder / f"{self.manifest.stem}.json", settings, fix)

    def make(self, where: JobOptions, logs: Path) -> None:
        title = f"features of {self.manifest.stem}"
        run_missing(title, dump_shard, self.jobs, self.is_complete, where, logs)


@dataclass(frozen=True)
class DumpJob:
    """One shard to be made; see :class:`SplitFeatures`."""

    shard: FeatureShard
    manifest: Path
    source: FeatureSource
    bad_clips: Path
    dtype: str


def dump_shard(job: DumpJob) -> int:
    """Make one shard; return its number of frames.

    A clip that cannot be read has no frames and is noted in the list of bad clips; DataError if more than 1 %
    of the split are bad, or features are not finite.
    """
    clips = read_manifest(job.manifest)
    bad = BadClips(job.bad_clips, {clip.id for clip in clips})
    features = job.source.open(job.shard.rank)
    lengths = []
    # One thread: shards are the parallelism, and more threads may round differently.
    with torch_threads(1), growing_array(job.shard.features, features.dim, job.dtype) as append:
        for clip in clips[job.shard.range(len(clips))]:
            frames: NDArray[Any] = _features_of(clip, features, bad).astype(job.dtype)
            if not np.isfinite(frames).all():
                raise DataError(
                    f"{job.manifest}, line {clip.line}: features of clip {clip.id} are not finite in "
                    f"{job.dtype}; check the checkpoint, or store float32"
                )
            append(frames)
            lengths.append(len(frames))
    write_atomically(job.shard.checksum, job.shard.checksum_line().encode())
    write_atomically(job.shard.lengths, "".join(f"{length}\n" for length in lengths).encode())
    return sum(lengths)


def _features_of(clip: Clip, features: FrameFeatures, bad: BadClips) -> NDArray[np.float32]:
    try:
        return features.of(clip)
    except MediaError as error:
        bad.record(clip, error)
        return np.zeros((0, features.dim), np.float32)
