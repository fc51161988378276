"""A speech teacher as a source of features for shards on disk.

What dumping a teacher's targets takes, said before it begins.

K-means on what a teacher makes of some clips, and how far its vectors are from the centroids.

From a data folder to a teacher's folder: targets in shards, clusters of them.

Shards appear whole or not at all, so that a killed run goes on where it was; what they were made with is kept
beside them, and other settings are refused.  `av_ssl.targets.teacher_targets` lists the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.reading import frame_waveform, read_wave
from av_ssl.errors import DataError, MediaError
from av_ssl.io import check_settings, digest, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import ClusterOptions, Crash, Stage, StageRunner, run_isolated
from av_ssl.layout import FRAME_RATE, Clip, manifest_part, read_manifest
from av_ssl.targets.clusters import Centroids, Codebook, FitJob, fit_and_write
from av_ssl.targets.feature_shards import (
    DumpJob,
    device_of,
    dump_shard,
    is_complete,
    one_thread,
    remove_shards,
    shard_count,
    shards_of,
)
from av_ssl.targets.speech_teacher import SpeechTeacher, TeacherSpec, load_teacher, weights_digest
from av_ssl.targets.teacher_targets import CENTROIDS, CLUSTERS, SETTINGS

TIMED_CLIPS = 3


class TeacherFeatures:
    """Targets of single clips, so that they do not depend on how the work is divided.

    Args:
        teacher: on its device.
        weights: digest of its checkpoint.
    """

    def __init__(self, teacher: SpeechTeacher, weights: str) -> None:
        self.teacher = teacher
        self.weights = weights
        self.dim = teacher.dim

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Targets `[r T - missing, D]` of a clip's T video frames; raises MediaError when it cannot be read.

        T is the manifest's, and the waveform is cut or filled with silence to 640 T samples, as training does
        for teachers that run online.
        """
        assert clip.audio is not None
        wave = frame_waveform(read_wave(clip.audio), clip.frames)
        count = len(wave) * self.teacher.per_frame - self.teacher.missing
        if count <= 0:
            raise MediaError(f"{clip.audio}: has {clip.frames} video frames in the manifest, too few")
        samples = torch.from_numpy(wave.reshape(1, -1)).to(next(self.teacher.model.parameters()).device)
        return self.teacher(samples, [len(wave)])[0, :count].cpu().numpy()


@dataclass(frozen=True)
class TeacherSource:
    """Which teacher, where it runs and in which precision.

    Args:
        teacher: checkpoint, layers, normalisation.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
        precision: a dtype of torch by name.
    """

    teacher: TeacherSpec
    device: str = "cpu"
    precision: str = "float32"

    def open(self, rank: int = 0) -> TeacherFeatures:
        """The teacher, loaded once a process; raises DataError when it cannot be loaded."""
        return _open(self.teacher, device_of(self.device, rank), self.precision)

    def settings(self) -> dict[str, Any]:
        """What decides the targets, and their sizes; the checkpoint counts by its content."""
        features = _open(self.teacher, "cpu", "float32")
        made = features.teacher
        return {
            "teacher": self.teacher.resolved(made.depth).settings(),
            "weights": features.weights,
            "precision": self.precision,
            "dim": made.dim,
            "per_frame": made.per_frame,
            "missing": made.missing,
        }


@lru_cache(maxsize=1)
def _open(spec: TeacherSpec, device: str, precision: str) -> TeacherFeatures:
    teacher = load_teacher(spec)
    weights = weights_digest(teacher.model)
    return TeacherFeatures(teacher.to(device, getattr(torch, precision)), weights)


class Speed(NamedTuple):
    """Of a teacher on this machine."""

    seconds: float
    """That one worker takes for a second of audio."""
    workers: int
    """That the machine serves at once: its GPUs, or cores; more take turns."""


def speed_on(job: tuple[TeacherSource, Sequence[Clip]]) -> Speed:
    """How fast the teacher is, measured on the first few of these clips that can be read, behind one more."""
    source, clips = job
    features = source.open()
    times: list[tuple[float, int]] = []
    problem = "there is none"
    with one_thread():  # as shards are made
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
    workers = torch.cuda.device_count() if source.device == "cuda" else os.cpu_count() or 1
    return Speed(seconds * FRAME_RATE / frames, workers)


STORED_BYTES = 2  # float16
TRIED_CLIPS = 20


@dataclass(frozen=True)
class Estimate:
    """What is still to be done.

    Attributes:
        clips: that have no targets yet.
        audio_hours: that they last.
        stored_bytes: that their targets take.
        free_bytes: on the disk.
    """

    clips: int
    audio_hours: float
    stored_bytes: int
    free_bytes: int

    def check(self, out: Path) -> None:
        """Raise DataError when the disk is too small."""
        if self.stored_bytes > self.free_bytes:
            raise DataError(
                f"{out}: targets take {self.stored_bytes / 1e9:.1f} GB, and "
                f"{self.free_bytes / 1e9:.1f} GB are free; make room, or let the teacher run in training "
                "(--no-dump)"
            )


def estimate(clips: Sequence[Clip], settings: Mapping[str, Any], out: Path) -> Estimate:
    """Of clips without targets, for a teacher of these settings (see `TeacherSource.settings`)."""
    frames = sum(clip.frames for clip in clips)
    targets = frames * settings["per_frame"] - len(clips) * settings["missing"]
    return Estimate(
        len(clips),
        frames / FRAME_RATE / 3600,
        targets * settings["dim"] * STORED_BYTES,
        shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free,
    )


def hours_of_work(source: TeacherSource, clips: Sequence[Clip], workers: int) -> float:
    """Time that so many workers of this machine need for the clips, tried on some of middling length.

    Raises DataError when the teacher fails on them, or none of them can be read.
    """
    middling = sorted(clips, key=lambda clip: clip.frames)[len(clips) // 2 :][:TRIED_CLIPS]
    # In a process of its own: workers could not use a GPU that this one has begun to use.
    _, speed = next(run_isolated(speed_on, [(source, middling)], 1))
    if isinstance(speed, Crash):
        raise DataError(f"teacher {source.teacher.model}: cannot be tried on a clip ({speed.message})")
    at_once = min(workers, len(clips), speed.workers)
    return speed.seconds * sum(clip.frames for clip in clips) / FRAME_RATE / 3600 / at_once


BLOCK = 10_000
"""Frames whose distances are computed at a time."""


def fit_teacher_clusters(job: FitJob) -> float:
    """Fit, write centroids and, beside them, their description with the inertia.

    Returns the inertia, the mean squared distance to the nearest centroid.
    """
    frames, centroids = fit_and_write(job)
    inertia = mean_distance(centroids, frames)
    description = {
        "clusters": job.clusters,
        "seed": job.seed,
        "inertia": inertia,
        "fitted_to_targets": len(frames),
    }
    path = job.centroids.with_name(CLUSTERS)
    write_atomically(path, json.dumps(description, indent=1).encode() + b"\n")
    return inertia


def mean_distance(centroids: Centroids, frames: NDArray[np.float32]) -> float:
    """Mean squared distance of frames `[N, D]` to the nearest of the centroids `[K, D]`."""
    codebook = Codebook(centroids)
    total = sum(codebook.nearest(frames[row : row + BLOCK])[1] for row in range(0, len(frames), BLOCK))
    return total / max(1, len(frames))


SAMPLE = "sample"
"""Name of the split that is made where targets are not kept."""


@dataclass(frozen=True)
class TeacherPlan:
    """What is to be made.

    Args:
        data: folder with `{split}.tsv`.
        out: the teacher's folder.
        splits: the first is the one that k-means is fitted to.
        source: the teacher.
        clusters: K.
        fit_targets: how many targets k-means is fitted to, about.
        dump: keep the targets of all splits; False: only clusters are made, from some clips of the first
            split, for a teacher that runs in training.
        shards: of each split; None: one for every 1000 clips, at least 16.
        seed: of the draw of clips and of k-means.
    """

    data: Path
    out: Path
    splits: tuple[str, ...]
    source: TeacherSource
    clusters: int
    fit_targets: int = 1_000_000
    dump: bool = True
    shards: int | None = None
    seed: int = 0


class TeacherMaker:
    """Runs the stages of a plan, those that are not done yet; writes nothing before :meth:`run`.

    Args:
        plan: what to make.
        cluster: where shards run.
        stage: told what begins and how far it is.

    Attributes:
        settings: see `TeacherSource.settings`.

    Raises DataError when a manifest cannot be used, the teacher cannot be loaded, or `plan.out` holds files
    that were made in another way.
    """

    def __init__(self, plan: TeacherPlan, cluster: ClusterOptions, stage: Stage) -> None:
        self.plan = plan
        self.work = StageRunner(cluster, plan.out / "logs", stage)
        self.settings = plan.source.settings()
        self.fitted = self._check_clusters()
        self.manifests = {split: plan.data / f"{split}.tsv" for split in plan.splits}
        self.clips: dict[str, list[Clip]] = {}
        self.sample: bytes | None = None
        if plan.dump:
            for split, path in self.manifests.items():
                self.clips[split] = self._check_audio(path, read_manifest(path))
        else:
            self._draw_sample()
        self.jobs = {split: self._jobs(split) for split in self.manifests}
        self._with_settings(check_settings)

    def missing(self) -> list[Clip]:
        """Clips that have no targets yet."""
        return [
            clip
            for split, clips in self.clips.items()
            for job in self._unfinished(split)
            for clip in clips[job.shard.range(len(clips))]
        ]

    def run(self) -> dict[str, Any]:
        """Make what is missing; returns the description of the clusters."""
        plan = self.plan
        self._with_settings(keep_settings)
        remove_abandoned(plan.out)
        if self.sample is not None:
            write_atomically(self.manifests[SAMPLE], self.sample)
        for split, jobs in self.jobs.items():
            self.work(f"targets of {split}", dump_shard, self._unfinished(split), len(jobs))
        if not self.fitted:
            split = next(iter(self.jobs))
            shards = tuple(job.shard for job in self.jobs[split])
            share = self._share(split)
            fit = FitJob(shards, plan.out / CENTROIDS, plan.clusters, share, plan.seed)
            self.work(f"{plan.clusters} clusters", fit_teacher_clusters, [fit], 1)
        for split in self.jobs:
            self._finish(split)
        shutil.rmtree(plan.out / "logs", ignore_errors=True)
        return self._read_clusters()

    def verify(self) -> int:
        """Read all finished shards and compare their checksums; returns how many there are.

        Raises DataError, which names those that are damaged.
        """
        shards = [job.shard for jobs in self.jobs.values() for job in jobs if job.shard.lengths.is_file()]
        damaged = [
            shard
            for shard in shards
            if not shard.checksum.is_file() or shard.checksum.read_text() != shard.checksum_line()
        ]
        if damaged:
            raise DataError(
                f"{self.plan.out}: damaged are {', '.join(shard.features.name for shard in damaged)}; delete "
                "their .len files, and the same command makes them again"
            )
        return len(shards)

    # -- helpers ---------------------------------------------------------------------------------------------

    def _check_clusters(self) -> bool:
        """Whether they are there; raises DataError when they are others than those asked for."""
        out, plan = self.plan.out, self.plan
        if not (out / CLUSTERS).exists() or not (out / CENTROIDS).exists():
            return False
        found = self._read_clusters()
        if (found["clusters"], found["seed"]) != (plan.clusters, plan.seed):
            raise DataError(
                f"{out / CLUSTERS}: there are {found['clusters']} clusters (seed {found['seed']}), not "
                f"{plan.clusters} (seed {plan.seed}); delete this file, and the same command fits anew"
            )
        return True

    def _read_clusters(self) -> dict[str, Any]:
        return dict(json.loads((self.plan.out / CLUSTERS).read_text()))

    def _check_audio(self, manifest: Path, clips: list[Clip]) -> list[Clip]:
        for clip in clips:
            if clip.audio is None:
                raise DataError(
                    f"{manifest}, line {clip.line}: clip {clip.id} has no audio, which teachers hear; "
                    "fill in the column"
                )
        return clips

    def _draw_sample(self) -> None:
        """Instead of the splits take clips of the first one, drawn at random, that have as many targets as
        k-means is fitted to; none where that is done."""
        manifest = self.manifests[self.plan.splits[0]]
        self.manifests = {}
        if self.fitted:
            return
        clips = read_manifest(manifest)
        order = np.random.default_rng(self.plan.seed).permutation(len(clips))
        targets = np.cumsum([clips[number].frames * self.settings["per_frame"] for number in order])
        drawn = order[: int(np.searchsorted(targets, self.plan.fit_targets)) + 1]
        self.clips[SAMPLE] = self._check_audio(manifest, [clips[number] for number in sorted(drawn)])
        self.manifests[SAMPLE] = self.plan.out / f"{SAMPLE}.tsv"
        self.sample = manifest_part(manifest, self.clips[SAMPLE]).encode()

    def _with_settings(self, apply: Callable[[Path, Mapping[str, Any], str], None]) -> None:
        """Compare, or compare and note, what all files are made with."""
        out = self.plan.out
        apply(out / SETTINGS, self.settings, f"delete {out}, or choose another --out")
        for split, manifest in self.manifests.items():
            content = digest(manifest) if self.sample is None else hashlib.sha256(self.sample).hexdigest()
            settings = {"manifest": content, "shards": len(self.jobs[split])}
            apply(
                out / f"{split}.json",
                settings,
                f"delete the files of {split} in {out}, or choose another --out",
            )

    def _jobs(self, split: str) -> list[DumpJob]:
        plan, manifest = self.plan, self.manifests[split]
        count = shard_count(len(self.clips[split]), plan.shards)
        bad_clips = plan.out / f"bad_clips.{split}.tsv"
        return [
            DumpJob(shard, manifest, plan.source, bad_clips, "float16")
            for shard in shards_of(plan.out, split, count)
        ]

    def _unfinished(self, split: str) -> list[DumpJob]:
        return [job for job in self.jobs[split] if not is_complete(job, self.clips[split])]

    def _share(self, split: str) -> float:
        """Of the clips of a split whose targets k-means is fitted to."""
        targets = sum(clip.frames for clip in self.clips[split]) * self.settings["per_frame"]
        return min(1.0, self.plan.fit_targets / max(1, targets))

    def _finish(self, split: str) -> None:
        """Note which clips the shards hold, or delete them where they are not kept."""
        if split == SAMPLE and not self.plan.dump:
            remove_shards(self.plan.out, [job.shard for job in self.jobs[split]])
            self.manifests[split].unlink(missing_ok=True)
            return
        ids = "".join(f"{clip.id}\n" for clip in self.clips[split])
        write_atomically(self.plan.out / f"{split}.ids", ids.encode())
