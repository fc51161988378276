"""From clips to a folder of layers: shards, each whole or not there, then joined.

A killed run goes on where it was, other settings are refused; `av_ssl.analysis.feature_folder` lists the
files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.analysis.feature_folder import INDEX, SETTINGS, Floats, frame_times, npz_file
from av_ssl.analysis.layer_source import LayerSource
from av_ssl.cluster import ClusterOptions
from av_ssl.data.manifest import Clip, manifest_part, read_manifest
from av_ssl.errors import DataError
from av_ssl.media.files import atomic_file, remove_abandoned, write_atomically
from av_ssl.targets.array_writer import growing_array
from av_ssl.targets.feature_shards import (
    DumpJob,
    FeatureShard,
    dump_shard,
    is_complete,
    remove_shards,
    shard_count,
    shards_of,
)
from av_ssl.targets.kept_settings import digest, keep_settings
from av_ssl.targets.stages import Stage, StageRunner

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
