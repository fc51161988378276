"""Cropping on a cluster: many runs of `crop_folder` on one output folder, each with a share of the clips.

The runs know of each other through the journal of the folder, so the same command goes on after a kill, and
nobody has to number anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from av_ssl.cluster import ClusterOptions, run_shards
from av_ssl.media.corpus import ClipSource
from av_ssl.media.crop_folder import FolderResult, crop_folder
from av_ssl.media.crop_settings import CropSettings

CLIPS_A_SHARD = 2000  # a few hours for a core; small enough that machines finish together


@dataclass(frozen=True)
class CropShard:
    """A share of the clips, for `processes` processes of one job."""

    sources: dict[str, ClipSource]
    out: Path
    settings: CropSettings
    processes: int


def crop_on_cluster(
    sources: Mapping[str, ClipSource],
    out: Path,
    settings: CropSettings,
    cluster: ClusterOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FolderResult:
    """As `crop_folder`, by jobs of `cluster`; `progress(done, total)` counts shards.

    Raises ShardsFailedError when jobs have failed; what they finished is kept.
    """
    shards = divide(sources, out, settings, cluster)
    run_shards(crop_shard, shards, cluster, out / "logs", progress)
    # All is done: this finds every result in the journal.
    return crop_folder(sources, out, settings)


def divide(
    sources: Mapping[str, ClipSource], out: Path, settings: CropSettings, cluster: ClusterOptions
) -> list[CropShard]:
    """Shards of at most 2000 clips, at least as many as there are jobs at a time while clips last."""
    names = sorted(sources)
    count = max(-(-len(names) // CLIPS_A_SHARD), min(cluster.workers, len(names)))
    # Every count-th clip: a corpus is sorted by speaker or film, whose clips take equally long.
    shares = ({name: sources[name].absolute() for name in names[start::count]} for start in range(count))
    return [CropShard(share, out.absolute(), settings, cluster.cpus) for share in shares]


def crop_shard(shard: CropShard) -> int:
    """Work of one job; returns how many clips came out."""
    folder = crop_folder(shard.sources, shard.out, shard.settings, shard.processes)
    return sum(result.ok for result in folder.results.values())
