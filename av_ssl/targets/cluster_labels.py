"""What `av-ssl targets` is asked to make, and where its files lie.

Cluster labels of the shards of a split, and the label files that training reads.

Finished label files against manifest and dictionary, and how the clusters are used.

From a data folder to cluster labels: features, centroids, labels, check.

Every stage is made of shards whose files appear whole or not at all, so that a killed run goes on where it
was.  What files were made with is kept beside them, and other settings are refused:

    OUT/{split}.{label}  OUT/dict.{label}.txt     what training reads
    OUT/{label}.clusters/                         centroids.npy, settings, report.json, shards of labels
    OUT/features/                                 shards of features and their settings, for all labels of OUT
    OUT/bad_clips.{split}.tsv                     clips that could not be read
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.dataset import TOLERATED_SHARE
from av_ssl.data.labels import FrameLabels
from av_ssl.errors import DataError
from av_ssl.io import digest, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import ClusterOptions, Stage, StageRunner
from av_ssl.layout import Clip, read_manifest
from av_ssl.targets.clusters import Codebook, FitJob, fit_job, read_centroids
from av_ssl.targets.feature_shards import (
    DumpJob,
    FeatureShard,
    FeatureSource,
    device_of,
    dump_shard,
    is_complete,
    one_thread,
    remove_shards,
    shard_count,
    shards_of,
)


@dataclass(frozen=True)
class TargetPlan:
    """What is to be made.

    Args:
        data: folder with `{split}.tsv`.
        out: folder for the labels.
        splits: the first is the one that k-means is fitted to.
        spec: the features.
        clusters: K.
        label: suffix of the label files.
        shards: of each split; None: one for every 1000 clips, at least 16.
        seed: of the draw of clips and of k-means.
        fit_share: share of the clips that k-means is fitted to.
        dtype: of stored features, `float32` or `float16`.
    """

    data: Path
    out: Path
    splits: tuple[str, ...]
    spec: FeatureSource
    clusters: int
    label: str = "km"
    shards: int | None = None
    seed: int = 0
    fit_share: float = 0.1
    dtype: str = "float32"

    @property
    def work(self) -> Path:
        """Folder of centroids, settings and the report."""
        return self.out / f"{self.label}.clusters"

    @property
    def features(self) -> Path:
        """Folder of features."""
        return self.out / "features"

    @property
    def centroids(self) -> Path:
        """Float32 `[K, D]`."""
        return self.work / "centroids.npy"

    @property
    def dictionary(self) -> Path:
        """Ids 0 to K-1."""
        return self.out / f"dict.{self.label}.txt"

    def labels(self, split: str) -> Path:
        """A line of ids a clip."""
        return self.out / f"{split}.{self.label}"

    def manifest(self, split: str) -> Path:
        """The clips."""
        return self.data / f"{split}.tsv"

    def feature_settings(self) -> dict[str, Any]:
        """What decides the features on disk."""
        return {**self.spec.settings(), "dtype": self.dtype}


COUNT = 10_000
"""Stands beside every id in the dictionary, as AV-HuBERT's tools write it; it has no meaning."""


@dataclass(frozen=True)
class LabelJob:
    """One shard to be labelled.

    Args:
        shard: its features.
        centroids: `.npy` file.
        folder: for `{stem}.txt`, a line of labels a clip, and `{stem}.json`, the sum of squared distances.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
    """

    shard: FeatureShard
    centroids: Path
    folder: Path
    device: str = "cpu"

    @property
    def lines(self) -> Path:
        """Labels."""
        return self.folder / f"{self.shard.stem}.txt"

    @property
    def summary(self) -> Path:
        """Written last: the shard is complete."""
        return self.folder / f"{self.shard.stem}.json"

    @property
    def complete(self) -> bool:
        """Whether its labels are there, and no older than features and centroids."""
        if not self.summary.is_file():
            return False
        sources = (self.shard.lengths, self.centroids)
        return self.summary.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in sources)


def label_shard(job: LabelJob) -> int:
    """Label one shard; returns its number of frames."""
    frames, lengths = job.shard.read()
    codebook = Codebook(read_centroids(job.centroids), device_of(job.device, job.shard.rank))
    lines, inertia, end = [], 0.0, 0
    # Clip by clip: a product of another shape may round differently, and labels must not depend on the
    # number of shards.
    with one_thread():
        for length in lengths:
            labels, distance = codebook.nearest(frames[end : end + length])
            end += length
            lines.append(" ".join(map(str, labels)) + "\n")
            inertia += distance
    write_atomically(job.lines, "".join(lines).encode())
    write_atomically(job.summary, json.dumps({"inertia": inertia, "frames": len(frames)}).encode())
    return len(frames)


def join_labels(path: Path, jobs: Sequence[LabelJob]) -> float:
    """Write the labels of all shards into the label file; returns the mean squared distance of a frame."""
    summaries = [json.loads(job.summary.read_text()) for job in jobs]
    write_atomically(path, b"".join(job.lines.read_bytes() for job in jobs))
    inertia = math.fsum(summary["inertia"] for summary in summaries)
    return inertia / max(1, sum(summary["frames"] for summary in summaries))


def write_dictionary(path: Path, clusters: int) -> None:
    """Write `dict.{label}.txt`: every id from 0, whether it occurs or not."""
    write_atomically(path, "".join(f"{cluster} {COUNT}\n" for cluster in range(clusters)).encode())


NAMED_IN_ERROR = 20


@dataclass(frozen=True)
class LabelUsage:
    """What a label file holds.

    Args:
        clips: lines.
        unlabelled: ids of clips without labels.
        disagreeing: ids of clips whose labels last 0.1 s or more longer or shorter than the clip, those
            without labels among them.
        counts: frames of each cluster `[K]`.
    """

    clips: int
    unlabelled: list[str]
    disagreeing: list[str]
    counts: NDArray[np.int64]

    @property
    def frames(self) -> int:
        """Labels in all."""
        return int(self.counts.sum())

    @property
    def unused(self) -> int:
        """Clusters that do not occur."""
        return int((self.counts == 0).sum())

    @property
    def entropy(self) -> float:
        """Of the clusters' frequencies, in bits; at most log2 K."""
        shares = self.counts[self.counts > 0] / max(1, self.frames)
        return float(-(shares * np.log2(shares)).sum()) + 0.0

    @property
    def perplexity(self) -> float:
        """Number of equally frequent clusters that would have this entropy."""
        return float(2**self.entropy)

    @property
    def largest_share(self) -> float:
        """Frequency of the most frequent cluster."""
        return float(self.counts.max(initial=0) / max(1, self.frames))

    def report(self, rate: int, inertia: float) -> dict[str, Any]:
        """The numbers for people; `rate` in labels/s, `inertia`: mean squared distance to the centroid."""
        return {
            "clips": self.clips,
            "labels": self.frames,
            "labels_a_second": rate,
            "hours": self.frames / rate / 3600,
            "clips_without_labels": self.unlabelled,
            "clips_of_other_length": self.disagreeing,
            "clusters": len(self.counts),
            "clusters_unused": self.unused,
            "entropy_bits": self.entropy,
            "perplexity": self.perplexity,
            "largest_share": self.largest_share,
            "inertia_a_frame": inertia,
        }


def check_labels(path: Path, dictionary: Path, clips: Sequence[Clip], rate: int, clusters: int) -> LabelUsage:
    """Read a label file as training does, and all of it.

    Args:
        path: `{split}.km`.
        dictionary: `dict.km.txt`.
        clips: of the manifest.
        rate: labels a second.
        clusters: K.

    Raises DataError when the number of lines is not that of clips, an id is not one of 0 to K-1 or not in the
    dictionary, or more than 1 % of the clips (and more than one) have labels that do not last as long.
    """
    labels = FrameLabels.load(path, dictionary, clips, rate)
    if labels.dictionary.symbols[labels.dictionary.nspecial :] != [str(k) for k in range(clusters)]:
        raise DataError(f"{dictionary}: does not list the ids 0 to {clusters - 1} in order; make it again")
    counts = np.zeros(clusters, np.int64)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            counts += _count(path, number, line, clusters)
    lengths, agrees = labels.file.symbol_counts, labels.agrees(clips)
    disagreeing = [clip.id for clip, fits in zip(clips, agrees, strict=True) if not fits]
    if len(disagreeing) > max(1, int(TOLERATED_SHARE * len(clips))):
        first = next(index for index, fits in enumerate(agrees) if not fits)
        raise DataError(
            f"{path}: labels and clip differ by 0.1 s or more in {len(disagreeing)} of {len(clips)} clips; "
            f"{clips[first].id} has {clips[first].frames} frames at 25 Hz in the manifest (line "
            f"{clips[first].line}) and {lengths[first]} labels at {rate} Hz. Mend the manifest's counts or "
            "the files: " + ", ".join(disagreeing[:NAMED_IN_ERROR])
        )
    unlabelled = [clip.id for clip, length in zip(clips, lengths, strict=True) if not length]
    return LabelUsage(len(clips), unlabelled, disagreeing, counts)


def _count(path: Path, number: int, line: bytes, clusters: int) -> NDArray[np.int64]:
    try:
        ids = np.array(line.split(), np.int64)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: holds something else than cluster ids ({error})") from error
    if len(ids) and not 0 <= ids.min() <= ids.max() < clusters:
        raise DataError(
            f"{path}, line {number}: holds cluster {ids[(ids < 0) | (ids >= clusters)][0]}, ids are 0 to "
            f"{clusters - 1}; make the labels again"
        )
    return np.bincount(ids, minlength=clusters)


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
