"""Cluster labels of the shards of a split, and the label files that training reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av_ssl.media.files import write_atomically
from av_ssl.targets.codebook import Codebook, read_centroids
from av_ssl.targets.feature_shards import FeatureShard, one_thread
from av_ssl.targets.frame_features import device_of

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
