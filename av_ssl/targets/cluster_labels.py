"""From a data folder to cluster labels: features, centroids, labels, check.

Every stage is made of shards whose files appear whole or not at all, so that a killed run goes on where it
was.  What files were made with is kept beside them, and other settings are refused:

    OUT/{split}.{label}  OUT/dict.{label}.txt     what training reads
    OUT/{label}.clusters/                         centroids.npy, settings, report.json, shards of labels
    OUT/features/                                 shards of features and their settings, for all labels of OUT
    OUT/bad_clips.{split}.tsv                     clips that could not be read
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from av_ssl.cluster import ClusterOptions
from av_ssl.data.manifest import Clip, read_manifest
from av_ssl.errors import DataError
from av_ssl.media.files import remove_abandoned, write_atomically
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
from av_ssl.targets.kmeans import FitJob, fit_job
from av_ssl.targets.label_check import check_labels
from av_ssl.targets.label_shards import LabelJob, join_labels, label_shard, write_dictionary
from av_ssl.targets.stages import Stage, StageRunner
from av_ssl.targets.target_plan import TargetPlan


class TargetMaker:
    """Runs the stages of a plan, those that are not done yet.

    Args:
        plan: what to make.
        cluster: where shards run.
        stage: told what begins and how far it is.

    Raises DataError when a manifest cannot be used, the model cannot be loaded, or `plan.out` holds files
    that were made in another way.
    """

    def __init__(self, plan: TargetPlan, cluster: ClusterOptions, stage: Stage) -> None:
        self.plan = plan
        self.work = StageRunner(cluster, self.log_folder, stage)
        self.clips = {split: self._read_clips(split) for split in plan.splits}
        self.digests = {split: digest(plan.manifest(split)) for split in plan.splits}
        self.feature_settings = plan.feature_settings()
        if not all(map(self._finished, plan.splits)):
            # A mistake shows here, before it is noted as a setting and many processes make it; on the CPU,
            # since the machine that starts Slurm jobs may have no GPU.
            replace(plan.spec, device="cpu").open()
        self._keep_cluster_settings()
        remove_abandoned(plan.out)

    def run(self, keep_features: bool = False) -> dict[str, dict[str, Any]]:
        """Make what is missing; returns what `report.json` holds: by split, see `LabelUsage.report`."""
        plan, fit_split = self.plan, self.plan.splits[0]
        fit = not plan.centroids.exists()
        todo = [split for split in plan.splits if not self._finished(split)]
        needed = [split for split in plan.splits if split in todo or (fit and split == fit_split)]
        shards = self.dump(needed)
        if fit:
            self.fit(shards[fit_split])
        self.label({split: shards[split] for split in todo})
        write_dictionary(plan.dictionary, plan.clusters)
        report = {split: self.check(split) for split in plan.splits}
        write_atomically(plan.work / "report.json", json.dumps(report, indent=1).encode() + b"\n")
        if not keep_features:
            remove_shards(plan.features, [shard for split in shards for shard in shards[split]])
        for folder in (self.label_folder, self.log_folder):
            shutil.rmtree(folder, ignore_errors=True)
        return report

    # -- the stages ------------------------------------------------------------------------------------------

    def dump(self, splits: Sequence[str]) -> dict[str, list[FeatureShard]]:
        """Features of splits."""
        plan, jobs, todo = self.plan, {}, []
        for split in splits:
            shards = shards_of(plan.features, split, shard_count(len(self.clips[split]), plan.shards))
            self._keep_feature_settings(split, len(shards))
            manifest, bad_clips = plan.manifest(split), plan.out / f"bad_clips.{split}.tsv"
            jobs[split] = [DumpJob(shard, manifest, plan.spec, bad_clips, plan.dtype) for shard in shards]
            todo += [job for job in jobs[split] if not is_complete(job, self.clips[split])]
        self.work("features", dump_shard, todo, sum(map(len, jobs.values())))
        return {split: [job.shard for job in jobs[split]] for split in splits}

    def fit(self, shards: Sequence[FeatureShard]) -> None:
        """Centroids."""
        plan = self.plan
        job = FitJob(tuple(shards), plan.centroids, plan.clusters, plan.fit_share, plan.seed)
        self.work(f"{plan.clusters} clusters", fit_job, [job], 1)

    def label(self, shards: Mapping[str, Sequence[FeatureShard]]) -> None:
        """The label files of splits."""
        plan = self.plan
        jobs = {
            split: [LabelJob(shard, plan.centroids, self.label_folder, plan.spec.device) for shard in part]
            for split, part in shards.items()
        }
        todo = [job for part in jobs.values() for job in part if not job.complete]
        self.work("labels", label_shard, todo, sum(map(len, jobs.values())))
        for split, part in jobs.items():
            inertia = join_labels(plan.labels(split), part)
            write_atomically(self._inertia_file(split), json.dumps(inertia).encode())

    def check(self, split: str) -> dict[str, Any]:
        """Description of the finished label file; raises DataError where it does not fit the manifest."""
        plan = self.plan
        usage = check_labels(
            plan.labels(split), plan.dictionary, self.clips[split], plan.spec.rate, plan.clusters
        )
        return usage.report(plan.spec.rate, json.loads(self._inertia_file(split).read_text()))

    # -- helpers ---------------------------------------------------------------------------------------------

    def _read_clips(self, split: str) -> list[Clip]:
        clips = read_manifest(self.plan.manifest(split))
        for clip in clips:
            for stream in self.plan.spec.streams:
                if getattr(clip, stream) is None:
                    raise DataError(
                        f"{self.plan.manifest(split)}, line {clip.line}: clip {clip.id} has no {stream}, of "
                        "which its targets are to be made; fill in the column"
                    )
        return clips

    def _keep_cluster_settings(self) -> None:
        plan = self.plan
        settings = {**self.feature_settings, "clusters": plan.clusters, "seed": plan.seed,
                    "fit share": plan.fit_share, "fit split": plan.splits[0]}  # fmt: skip
        mend = (
            f"delete {plan.work} and the .{plan.label} files of {plan.out}, or choose another --out or "
            "--label-name"
        )
        for split in plan.splits:
            if plan.labels(split).exists() and not (plan.work / f"{split}.json").exists():
                raise DataError(
                    f"{plan.labels(split)}: was not made by this command; choose another --out or "
                    "--label-name, or move it away"
                )
        if not plan.centroids.exists() and not any(plan.labels(split).exists() for split in plan.splits):
            (plan.work / "settings.json").unlink(missing_ok=True)  # nothing was made with them
        keep_settings(plan.work / "settings.json", settings, mend)
        for split, manifest in self.digests.items():
            keep_settings(plan.work / f"{split}.json", {"manifest": manifest}, mend)

    def _keep_feature_settings(self, split: str, shards: int) -> None:
        folder = self.plan.features
        mend = f"delete {folder}, or choose another --out"
        keep_settings(folder / "settings.json", self.feature_settings, mend)
        of_split = {"manifest": self.digests[split], "shards": shards}
        keep_settings(folder / f"{split}.json", of_split, mend)

    @property
    def label_folder(self) -> Path:
        """Shards of labels."""
        return self.plan.work / "labels"

    @property
    def log_folder(self) -> Path:
        """Tracebacks, and what submitit writes."""
        return self.plan.work / "logs"

    def _inertia_file(self, split: str) -> Path:
        return self.plan.work / f"{split}.inertia.json"

    def _finished(self, split: str) -> bool:
        return self.plan.labels(split).exists() and self._inertia_file(split).exists()
