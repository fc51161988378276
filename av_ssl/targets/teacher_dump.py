"""From a data folder to a teacher's folder: targets in shards, and clusters of them.

Shards appear complete or not at all, so that a run that was killed continues where it stopped.  Settings are
kept beside the files, and other settings are refused.  :mod:`av_ssl.targets.teacher_targets` lists the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.device import torch_threads
from av_ssl.errors import DataError, MediaError
from av_ssl.io import (
    atomic_file,
    check_settings,
    digest,
    keep_settings,
    read_json,
    remove_abandoned,
    write_atomically,
)
from av_ssl.jobs import HERE, Crash, JobOptions, available_cores, run_isolated, run_missing
from av_ssl.layout import FRAME_RATE
from av_ssl.manifest import Clip, check_streams, manifest_part, read_manifest
from av_ssl.targets.clusters import FitJob, fit_job, import_sklearn
from av_ssl.targets.feature_shards import FeatureShard, SplitFeatures, remove_shards
from av_ssl.targets.speech_teacher import TeacherSpec, position_means
from av_ssl.targets.teacher_targets import CENTROIDS, CLUSTERS, SETTINGS

SAMPLE = "sample"
"""Name of the split that is made where targets are not kept."""
DTYPE, STORED_BYTES = "float16", 2
POSITION_CLIPS = 200

# -- the command ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherPlan:
    """A teacher's folder to be made.

    Args:
        data: folder with ``{split}.tsv``.
        out: the teacher's folder.
        splits: k-means is fitted to the first.
        source: the teacher.
        clusters: K.
        fit_targets: k-means is fitted to about this many targets.
        dump: keep the targets of all splits; False: only make clusters, from some clips of the first split,
            for a teacher that runs in training.
        shards: of each split; None: one for every 1000 clips, at least 16.
        seed: of the draw of clips and of k-means.
    """

    data: Path
    out: Path
    splits: tuple[str, ...]
    source: TeacherSpec
    clusters: int
    fit_targets: int = 1_000_000
    dump: bool = True
    shards: int | None = None
    seed: int = 0


def dump_teacher(plan: TeacherPlan, where: JobOptions = HERE) -> dict[str, Any]:
    """Make the targets and clusters of a plan, as far as they are not there yet.

    Returns settings of the teacher and the description of its clusters: ``dim``, ``per_frame``, ``clusters``,
    ``inertia``, ``fitted_to_targets``, ...

    Raises DataError if a manifest or the teacher cannot be used, the disk is too small, too many clips cannot
    be read, or the folder holds files that were made with other settings.
    """
    work = _Work.of(plan)
    work.estimate().check()
    if not work.fitted:
        import_sklearn()
    work.apply_settings(keep_settings)
    remove_abandoned(plan.out)
    if work.sample is not None:
        write_atomically(plan.out / f"{SAMPLE}.tsv", work.sample)
    logs = plan.out / "logs"
    if (means := plan.source.positions) is not None:
        run_missing("positions", find_positions, [plan], lambda _: means.is_file(), where, logs)
    for split in work.splits:
        split.make(where, logs)
    if not work.fitted:
        run_missing(f"{plan.clusters} clusters", fit_job, [work.fit()], lambda job: False, where, logs)
    if plan.dump:
        for split in work.splits:
            ids = "".join(f"{clip.id}\n" for clip in split.clips)
            write_atomically(plan.out / f"{split.manifest.stem}.ids", ids.encode())
    else:
        for split in work.splits:
            remove_shards(split.shards)
            split.manifest.unlink(missing_ok=True)
    shutil.rmtree(logs, ignore_errors=True)
    return {**work.settings, **_read_clusters(plan)}


def verify_teacher(folder: Path) -> int:
    """Compare the finished shards of a folder with their checksums; return their number.

    Raises DataError if there are none, or naming those that are damaged.
    """
    finished = [
        FeatureShard(folder, path.stem.rsplit("_", 2)[0], *map(int, path.stem.rsplit("_", 2)[1:]))
        for path in sorted(folder.glob("*_*_*.len"))
    ]
    if not finished:
        raise DataError(f"{folder}: holds no finished shards of targets, so there is nothing to compare")
    damaged = [
        shard.features.name
        for shard in finished
        if not shard.checksum.is_file() or shard.checksum.read_bytes() != shard.checksum_line().encode()
    ]
    if damaged:
        raise DataError(
            f"{folder}: damaged are {', '.join(damaged)}; delete their .len files and run the same command "
            "again"
        )
    return len(finished)


@dataclass(frozen=True)
class _Work:
    """What is to be done for a plan; creating it writes nothing.

    ``sample`` is the manifest of the clips that take the place of the splits where targets are not kept.
    """

    plan: TeacherPlan
    settings: Mapping[str, Any]
    fitted: bool
    splits: Sequence[SplitFeatures]
    sample: bytes | None = None

    @classmethod
    def of(cls, plan: TeacherPlan) -> _Work:
        settings = plan.source.settings()
        fitted = _is_fitted(plan)
        manifests = [plan.data / f"{split}.tsv" for split in plan.splits]
        if plan.dump:
            splits = [_split(plan, path, read_manifest(path), digest(path)) for path in manifests]
            work = cls(plan, settings, fitted, splits)
        elif fitted:
            work = cls(plan, settings, fitted, [])
        else:
            clips = _draw_sample(plan, manifests[0], settings["per_frame"])
            sample = manifest_part(manifests[0], clips).encode()
            split = _split(plan, plan.out / f"{SAMPLE}.tsv", clips, hashlib.sha256(sample).hexdigest())
            work = cls(plan, settings, fitted, [split], sample)
        for split in work.splits:
            listed_in = manifests[0] if work.sample else split.manifest
            check_streams(listed_in, split.clips, plan.source.streams, "fill in the column")
        work.apply_settings(check_settings)
        return work

    def apply_settings(self, apply: Callable[[Path, Mapping[str, Any], str], None]) -> None:
        """Check, or check and keep, the settings of the folder and of each split."""
        out = self.plan.out
        apply(out / SETTINGS, self.settings, f"delete {out}, or choose another --out")
        for split in self.splits:
            name = split.manifest.stem
            split.apply_settings(f"delete the files of {name} in {out}, or choose another --out", apply)

    def missing_clips(self) -> list[Clip]:
        return [clip for split in self.splits for clip in split.missing_clips()]

    def estimate(self) -> Estimate:
        clips, out = self.missing_clips(), self.plan.out
        frames = sum(clip.frames for clip in clips)
        targets = frames * self.settings["per_frame"] - len(clips) * self.settings["missing"]
        free = shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free
        stored = targets * self.settings["dim"] * STORED_BYTES
        return Estimate(self.plan, len(clips), frames / FRAME_RATE / 3600, stored, free)

    def fit(self) -> FitJob:
        plan, first = self.plan, self.splits[0]
        targets = sum(clip.frames for clip in first.clips) * self.settings["per_frame"]
        share = min(1.0, plan.fit_targets / max(1, targets))
        return FitJob(
            first.shards, plan.out / CENTROIDS, plan.clusters, share, plan.seed, plan.out / CLUSTERS
        )


def find_positions(plan: TeacherPlan) -> None:
    """Write the means at each position, of random clips of the first split that can be read."""
    file = plan.source.positions
    assert file is not None
    clips = read_manifest(plan.data / f"{plan.splits[0]}.tsv")
    order = np.random.default_rng(plan.seed).permutation(len(clips))
    teacher = replace(plan.source, positions=None).open()

    def features() -> Iterator[NDArray[np.float32]]:
        for number in order[:POSITION_CLIPS]:
            with contextlib.suppress(MediaError):  # they are recorded when targets are made
                yield teacher.of(clips[number])

    with torch_threads(1):
        means = position_means(features())
    if not len(means):
        raise DataError(f"{plan.data}: none of {min(len(clips), POSITION_CLIPS)} clips can be read")
    with atomic_file(file) as out:
        np.save(out, means)


def _split(plan: TeacherPlan, manifest: Path, clips: Sequence[Clip], content: str) -> SplitFeatures:
    return SplitFeatures(manifest, content, clips, plan.source, plan.out, plan.out, DTYPE, plan.shards)


def _is_fitted(plan: TeacherPlan) -> bool:
    """Whether the clusters are there; DataError if they are others than those of the plan."""
    path = plan.out / CLUSTERS
    if not path.exists() or not (plan.out / CENTROIDS).exists():
        return False
    found = _read_clusters(plan)
    if (found["clusters"], found["seed"]) != (plan.clusters, plan.seed):
        raise DataError(
            f"{path}: there are {found['clusters']} clusters (seed {found['seed']}), not {plan.clusters} "
            f"(seed {plan.seed}); delete this file and run the same command to fit again"
        )
    return True


def _read_clusters(plan: TeacherPlan) -> dict[str, Any]:
    return read_json(plan.out / CLUSTERS, "delete it and run the same command to fit again")


def _draw_sample(plan: TeacherPlan, manifest: Path, per_frame: int) -> list[Clip]:
    """Random clips of a split that have as many targets as k-means is fitted to."""
    clips = read_manifest(manifest)
    order = np.random.default_rng(plan.seed).permutation(len(clips))
    targets = np.cumsum([clips[number].frames * per_frame for number in order])
    drawn = order[: int(np.searchsorted(targets, plan.fit_targets)) + 1]
    return [clips[number] for number in sorted(drawn)]


# -- estimates -----------------------------------------------------------------------------------------------

TRIED_CLIPS = 20
TIMED_CLIPS = 3


@dataclass(frozen=True)
class Estimate:
    """What is still to be done; ``hours`` of work are None if unknown."""

    plan: TeacherPlan
    clips: int
    audio_hours: float
    stored_bytes: int
    free_bytes: int
    hours: float | None = None

    def __str__(self) -> str:
        kept = "" if self.plan.dump else " for the time being"
        text = (
            f"{self.clips} clips, {self.audio_hours:.2f} hours of audio: {self.stored_bytes / 1e9:.3f} GB"
            f"{kept} in {self.plan.out}, where {self.free_bytes / 1e9:.1f} GB are free"
        )
        if self.hours is None:
            return text
        return f"{text}, about " + (f"{60 * self.hours:.1f} min" if self.hours < 2 else f"{self.hours:.1f} h")

    def check(self) -> None:
        if self.stored_bytes > self.free_bytes:
            raise DataError(
                f"{self.plan.out}: targets take {self.stored_bytes / 1e9:.1f} GB, and "
                f"{self.free_bytes / 1e9:.1f} GB are free; free space, or let the teacher run in training "
                "(--no-dump)"
            )


def estimate_teacher(plan: TeacherPlan, where: JobOptions = HERE) -> Estimate:
    """What is still to be done for a plan; locally with the time, measured on some clips."""
    work = _Work.of(plan)
    clips, estimate = work.missing_clips(), work.estimate()
    if not clips or where.kind != "local":
        return estimate
    return replace(estimate, hours=hours_of_work(replace(plan.source, positions=None), clips, where.workers))


def speed_on(job: tuple[TeacherSpec, Sequence[Clip]]) -> tuple[float, int]:
    """Measure the teacher on the first few of these clips that can be read, after one more.

    Returns the seconds that a worker takes for a second of audio, and the number of workers that the machine
    serves at once: its GPUs, or cores; more take turns.
    """
    source, clips = job
    features = source.open()
    times: list[tuple[float, int]] = []
    problem = "there is none"
    with torch_threads(1):  # as shards are made
        for clip in clips:
            start = perf_counter()
            try:
                features.of(clip)
            except MediaError as error:
                problem = str(error)
                continue
            times.append((perf_counter() - start, clip.frames))
            if len(times) > TIMED_CLIPS:
                break
    if not times:
        raise MediaError(f"none of {len(clips)} clips can be read: {problem}")
    timed = times[1:] or times
    seconds, frames = (sum(column) for column in zip(*timed, strict=True))
    workers = torch.cuda.device_count() if source.device == "cuda" else available_cores()
    return seconds * FRAME_RATE / frames, workers


def hours_of_work(source: TeacherSpec, clips: Sequence[Clip], workers: int) -> float:
    """Time that this many workers of this machine need, measured on some clips of medium length."""
    medium = sorted(clips, key=lambda clip: clip.frames)[len(clips) // 2 :][:TRIED_CLIPS]
    # In a process of its own: workers could not use a GPU that this one has begun to use.
    _, speed = next(run_isolated(speed_on, [(source, medium)], 1))
    if isinstance(speed, Crash):
        raise DataError(f"teacher {source.model}: cannot be tried on a clip ({speed.message})")
    seconds, served = speed
    hours = sum(clip.frames for clip in clips) / FRAME_RATE / 3600
    return seconds * hours / min(workers, len(clips), served)
