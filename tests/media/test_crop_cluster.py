"""Cropping by many jobs on one folder, with run_shards in place of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_ssl.errors import DataError
from av_ssl.jobs import JobOptions
from av_ssl.media import crop_folder as crop_module
from av_ssl.media.crop_folder import crop_folder, crop_on_cluster, divide
from av_ssl.media.crops import CropSettings
from av_ssl.media.sources import ClipSource
from tests.media.synthetic import talking_head


def sources(count: int) -> dict[str, ClipSource]:
    return {f"{number:06d}": ClipSource(Path(f"x/{number}.mp4")) for number in range(count)}


@pytest.mark.parametrize(("clips", "workers", "shards"), [(3, 8, 3), (50, 8, 8), (9000, 2, 5), (1, 1, 1)])
def test_shards_hold_every_clip_once_and_not_too_many(clips, workers, shards):
    parts = divide(sources(clips), workers)
    assert len(parts) == shards
    assert sorted(name for part in parts for name in part) == sorted(sources(clips))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(clip.video.is_absolute() for part in parts for clip in part.values())


def test_jobs_give_what_one_run_gives_and_go_on_after_a_failure(tmp_path, monkeypatch, in_process):
    clips = {}
    for number in range(3):
        clips[f"a {number}"] = ClipSource(talking_head(tmp_path / "in" / f"a {number}.mkv", frames=6))
    whole = crop_folder(clips, tmp_path / "whole", CropSettings())
    work = crop_module.crop_shard

    def lose_one(clips, **options):
        if "a 1" in clips:
            raise RuntimeError("the machine is gone")
        return work(clips, **options)

    # Locally, in this process: what differs on Slurm is tested with `run_shards`.
    where, counts = JobOptions("local", workers=1), []
    monkeypatch.setattr(crop_module, "CLIPS_A_SHARD", 1)
    monkeypatch.setattr(crop_module, "crop_shard", lose_one)
    with pytest.raises(DataError, match="machine is gone"):
        crop_on_cluster(clips, tmp_path / "out", CropSettings(), where)
    crops = sorted(path.name for path in (tmp_path / "out" / "video").iterdir())
    assert crops == ["a 0.mp4", "a 2.mp4"]
    written = (tmp_path / "out" / "video" / "a 0.mp4").stat().st_mtime_ns
    monkeypatch.setattr(crop_module, "crop_shard", work)
    result = crop_on_cluster(
        clips, tmp_path / "out", CropSettings(), where, lambda done, total: counts.append((done, total))
    )
    assert result.results == whole.results
    assert counts[-1] == (3, 3)
    assert (tmp_path / "out" / "video" / "a 0.mp4").stat().st_mtime_ns == written
