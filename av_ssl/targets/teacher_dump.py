"""From a data folder to a teacher's folder: targets in shards, clusters of them.

Shards appear whole or not at all, so that a killed run goes on where it was; what they were made with is kept
beside them, and other settings are refused.  `av_ssl.targets.teacher_folder` lists the files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.cluster import ClusterOptions
from av_ssl.data.manifest import Clip, manifest_part, read_manifest
from av_ssl.errors import DataError
from av_ssl.media.files import remove_abandoned, write_atomically
from av_ssl.targets.feature_shards import (
    DumpJob,
    dump_shard,
    is_complete,
    remove_shards,
    shard_count,
    shards_of,
)
from av_ssl.targets.kept_settings import check_settings, digest, keep_settings
from av_ssl.targets.kmeans import FitJob
from av_ssl.targets.stages import Stage, StageRunner
from av_ssl.targets.teacher_clusters import fit_teacher_clusters
from av_ssl.targets.teacher_features import TeacherSource
from av_ssl.targets.teacher_folder import CENTROIDS, CLUSTERS, SETTINGS

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
