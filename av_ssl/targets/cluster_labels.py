"""From a data folder to cluster labels: features, k-means, labels, check.

Every stage consists of shards whose files appear complete or not at all, so that a run that was killed
continues where it stopped.  Settings are kept beside the files, and other settings are refused:

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.dataset import TOLERATED_SHARE
from av_ssl.data.labels import FrameLabels
from av_ssl.device import device_of, torch_threads
from av_ssl.errors import DataError
from av_ssl.io import digest, keep_settings, read_json, remove_abandoned, write_atomically, write_json
from av_ssl.jobs import HERE, JobOptions, run_missing
from av_ssl.manifest import Clip, check_streams, read_manifest
from av_ssl.targets.clusters import Codebook, FitJob, fit_job, import_sklearn, read_centroids
from av_ssl.targets.feature_shards import FeatureShard, FeatureSource, SplitFeatures, remove_shards

COUNT = 10_000
"""Stands beside every id in the dictionary, as AV-HuBERT's tools write it; it has no meaning."""
NAMED_IN_ERROR = 20

# -- the command ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterPlan:
    """Cluster labels to be made.

    Args:
        data: folder with ``{split}.tsv``.
        out: folder for the labels.
        splits: k-means is fitted to the first.
        source: the features.
        clusters: K.
        label: suffix of the label files.
        shards: of each split; None: one for every 1000 clips, at least 16.
        seed: of the draw of clips and of k-means.
        fit_share: share of the clips that k-means is fitted to.
        dtype: of stored features, ``float32`` or ``float16``.
        device: where nearest centroids are searched, ``cpu`` or ``cuda``.
        keep_features: do not delete the features at the end.
    """

    data: Path
    out: Path
    splits: tuple[str, ...]
    source: FeatureSource
    clusters: int
    label: str = "km"
    shards: int | None = None
    seed: int = 0
    fit_share: float = 0.1
    dtype: str = "float32"
    device: str = "cpu"
    keep_features: bool = False

    @property
    def work(self) -> Path:
        return self.out / f"{self.label}.clusters"

    @property
    def logs(self) -> Path:
        return self.work / "logs"

    @property
    def label_shards(self) -> Path:
        """Folder of labels of shards, until they are joined."""
        return self.work / "labels"

    @property
    def features(self) -> Path:
        return self.out / "features"

    @property
    def centroids(self) -> Path:
        return self.work / "centroids.npy"

    @property
    def report(self) -> Path:
        return self.work / "report.json"

    @property
    def dictionary(self) -> Path:
        return self.out / f"dict.{self.label}.txt"

    def labels(self, split: str) -> Path:
        return self.out / f"{split}.{self.label}"

    def inertia(self, split: str) -> Path:
        """Mean squared distance of a frame to its centroid; written after the labels."""
        return self.work / f"{split}.inertia.json"

    def is_labelled(self, split: str) -> bool:
        return self.labels(split).exists() and self.inertia(split).exists()


def make_cluster_labels(plan: ClusterPlan, where: JobOptions = HERE) -> dict[str, dict[str, Any]]:
    """Make the labels of a plan, as far as they are not there yet.

    Returns how the clusters are used in each split, see :func:`check_labels`.

    Raises DataError if a manifest or the model cannot be used, too many clips cannot be read, or the folder
    holds files that were made with other settings.
    """
    splits = {split: _split(plan, split) for split in plan.splits}
    features = {**plan.source.settings(), "dtype": plan.dtype}
    _keep_settings(plan, features, splits)
    remove_abandoned(plan.out)

    to_label = [split for split in plan.splits if not plan.is_labelled(split)]
    to_dump = list(to_label)
    fitted = plan.centroids.exists()
    if not fitted:
        import_sklearn()
        to_dump = [split for split in plan.splits if split in to_label or split == plan.splits[0]]
    for split in to_dump:
        fix = f"delete {plan.features}, or choose another --out"
        keep_settings(plan.features / "settings.json", features, fix)
        splits[split].apply_settings(fix)
    for split in to_dump:
        splits[split].make(where, plan.logs)
    if not fitted:
        shards = splits[plan.splits[0]].shards
        fit = FitJob(shards, plan.centroids, plan.clusters, plan.fit_share, plan.seed)
        run_missing(f"{plan.clusters} clusters", fit_job, [fit], lambda job: False, where, plan.logs)
    for split in to_label:
        _make_labels(plan, splits[split], where)
    write_dictionary(plan.dictionary, plan.clusters)

    report = {}
    for split in plan.splits:
        usage = check_labels(
            plan.labels(split), plan.dictionary, splits[split].clips, plan.source.rate, plan.clusters
        )
        report[split] = {**usage, "inertia_a_frame": json.loads(plan.inertia(split).read_text())}
    write_json(plan.report, report)
    if not plan.keep_features:
        remove_shards([shard for split in to_dump for shard in splits[split].shards])
    for folder in (plan.label_shards, plan.logs):
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _split(plan: ClusterPlan, split: str) -> SplitFeatures:
    manifest = plan.data / f"{split}.tsv"
    clips = read_manifest(manifest)
    check_streams(manifest, clips, plan.source.streams, "fill in the column")
    return SplitFeatures(
        manifest, digest(manifest), clips, plan.source, plan.features, plan.out, plan.dtype, plan.shards
    )


def _make_labels(plan: ClusterPlan, features: SplitFeatures, where: JobOptions) -> None:
    """The label file of a split, and the inertia that shows that it is finished."""
    split = features.manifest.stem
    jobs = [LabelJob(shard, plan.centroids, plan.label_shards, plan.device) for shard in features.shards]
    run_missing(f"labels of {split}", label_shard, jobs, LabelJob.is_complete, where, plan.logs)
    inertia = join_labels(plan.labels(split), jobs)
    write_atomically(plan.inertia(split), json.dumps(inertia).encode())


def _keep_settings(
    plan: ClusterPlan, features: Mapping[str, Any], splits: Mapping[str, SplitFeatures]
) -> None:
    fix = (
        f"delete {plan.work} and the .{plan.label} files of {plan.out}, or choose another --out or "
        "--label-name"
    )
    for split in plan.splits:
        if plan.labels(split).exists() and not (plan.work / f"{split}.json").exists():
            raise DataError(
                f"{plan.labels(split)}: was not made by this command; move it away, or choose another --out "
                "or --label-name"
            )
    if not plan.centroids.exists() and not any(plan.labels(split).exists() for split in plan.splits):
        (plan.work / "settings.json").unlink(missing_ok=True)  # nothing was made with them
    settings = {
        **features,
        "clusters": plan.clusters,
        "seed": plan.seed,
        "fit share": plan.fit_share,
        "fit split": plan.splits[0],
    }
    keep_settings(plan.work / "settings.json", settings, fix)
    for split in plan.splits:
        keep_settings(plan.work / f"{split}.json", {"manifest": splits[split].digest}, fix)


# -- labels --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelJob:
    """One shard of features to be labelled: a line of labels a clip, and the sum of squared distances.

    ``device`` is ``cpu``, or ``cuda``: the GPUs of the machine take turns.
    """

    shard: FeatureShard
    centroids: Path
    folder: Path
    device: str = "cpu"

    @property
    def lines(self) -> Path:
        return self.folder / f"{self.shard.stem}.txt"

    @property
    def summary(self) -> Path:
        """Written last: the shard is complete."""
        return self.folder / f"{self.shard.stem}.json"

    def is_complete(self) -> bool:
        """Whether its labels are there, and no older than features and centroids."""
        if not self.summary.is_file():
            return False
        sources = (self.shard.lengths, self.centroids)
        return self.summary.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in sources)


def label_shard(job: LabelJob) -> int:
    frames, lengths = job.shard.read()
    codebook = Codebook(read_centroids(job.centroids), device_of(job.device, job.shard.rank))
    lines, inertia, end = [], 0.0, 0
    # Clip by clip: a product of another shape may round differently, and labels must not depend on the
    # number of shards.
    with torch_threads(1):
        for length in lengths:
            labels, distance = codebook.nearest(frames[end : end + length])
            end += length
            lines.append(" ".join(map(str, labels)) + "\n")
            inertia += distance
    write_atomically(job.lines, "".join(lines).encode())
    write_json(job.summary, {"inertia": inertia, "frames": len(frames)})
    return len(frames)


def join_labels(path: Path, jobs: Sequence[LabelJob]) -> float:
    """Write the labels of all shards to the label file; return the mean squared distance of a frame."""
    summaries = [read_json(job.summary, f"delete {job.folder}") for job in jobs]
    write_atomically(path, b"".join(job.lines.read_bytes() for job in jobs))
    inertia = math.fsum(summary["inertia"] for summary in summaries)
    return inertia / max(1, sum(summary["frames"] for summary in summaries))


def write_dictionary(path: Path, clusters: int) -> None:
    """Write ``dict.{label}.txt``: every id from 0, whether it occurs or not."""
    write_atomically(path, "".join(f"{cluster} {COUNT}\n" for cluster in range(clusters)).encode())


# -- check ---------------------------------------------------------------------------------------------------


def check_labels(
    path: Path, dictionary: Path, clips: Sequence[Clip], rate: int, clusters: int
) -> dict[str, Any]:
    """Read a label file as training does, and all of it.

    Args:
        path: ``{split}.km``.
        dictionary: ``dict.km.txt``.
        clips: of the manifest.
        rate: labels a second.
        clusters: K.

    Returns:
        Numbers of clips, labels and hours; ids of clips without labels, and of clips whose labels last 0.1 s
        or more longer or shorter than the clip (those without labels among them); how the clusters are used:
        entropy of their frequencies in bits, perplexity (the number of equally frequent clusters of this
        entropy), share of the most frequent one.

    Raises DataError if lines and clips differ in number, an id is not one of 0 to K-1 or not in the
    dictionary, or more than 1 % of the clips (and more than one) have labels of another length.
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
            f"{clips[first].line}) and {lengths[first]} labels at {rate} Hz. Correct the manifest's counts "
            "or the files: " + ", ".join(disagreeing[:NAMED_IN_ERROR])
        )
    total = int(counts.sum())
    shares = counts[counts > 0] / max(1, total)
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
    return {
        "clips": len(clips),
        "labels": total,
        "labels_a_second": rate,
        "hours": total / rate / 3600,
        "clips_without_labels": [clip.id for clip, length in zip(clips, lengths, strict=True) if not length],
        "clips_of_other_length": disagreeing,
        "clusters": clusters,
        "clusters_unused": int((counts == 0).sum()),
        "entropy_bits": entropy,
        "perplexity": float(2**entropy),
        "largest_share": float(shares.max(initial=0)),
    }


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


def summary(plan: ClusterPlan, split: str, usage: Mapping[str, Any]) -> str:
    """The usage of a split, from :func:`make_cluster_labels`, as text."""
    used = usage["clusters"] - usage["clusters_unused"]
    lines = [
        f"{plan.labels(split)}: {usage['clips']} clips, {usage['labels']} labels at "
        f"{usage['labels_a_second']} Hz ({usage['hours']:.2f} hours)",
        f"  clusters: {used} of {usage['clusters']} used, perplexity {usage['perplexity']:.1f} (entropy "
        f"{usage['entropy_bits']:.2f} bits), the most frequent has {usage['largest_share']:.1%}; "
        f"inertia {usage['inertia_a_frame']:.4g} a frame",
    ]
    if missing := usage["clips_without_labels"]:
        lines.append(
            f"  {len(missing)} clips cannot be read and have NO labels, so training leaves them out: "
            f"{', '.join(missing[:5])}; {plan.out / f'bad_clips.{split}.tsv'} gives the reasons. "
            f"Once they are repaired, delete it and {plan.labels(split)}, and run the same command again"
        )
    if other := sorted(set(usage["clips_of_other_length"]) - set(missing)):
        lines.append(
            f"  {len(other)} clips differ by 0.1 s or more from their length in the manifest, so training "
            f"leaves them out: {', '.join(other[:5])}"
        )
    return "\n".join(lines)
