"""`av-ssl crop` on a folder: results, continuing after a kill, two runs at once, a full disk."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from av_ssl.jobs import Crash
from av_ssl.media import crop_folder as folder_module
from av_ssl.media.crop_folder import crop_folder
from av_ssl.media.crops import CropResult, CropSettings
from tests.media.synthetic import moving_face, noise_frames, run_in_process, talking_head, tone, write_clip

from .conftest import call

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def talks(tmp_path):
    """Four good clips, one of them with two faces, and one each of what goes wrong."""
    root = tmp_path / "talks"
    for index in range(3):
        talking_head(root / "s 1" / f"it's {index}.mp4", frames=8, shift=index)
    faces = moving_face(8)
    write_clip(root / "two.avi", np.concatenate([faces, faces], axis=2), tone(0.32))
    write_clip(root / "noise.mkv", noise_frames(), tone(0.32))
    write_clip(root / "mute.mov", moving_face(6), None)
    (root / "broken.webm").write_bytes(b"not a video")
    (root / "tab\there.mp4").write_bytes(b"")
    return root


@pytest.fixture
def in_process(monkeypatch):
    """Crops in this process."""
    monkeypatch.setattr(folder_module, "run_isolated", run_in_process)


def files_below(root):
    """Content of the crops and lists by name; the journal holds names of runs."""
    kept = ("video", "audio", "clips.tsv", "report.json", "settings.json", "contact_sheet.png")
    paths = [path for name in kept for path in [root / name, *(root / name).rglob("*")] if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def start(*words):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "av_ssl.cli", *map(str, words)]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


def test_a_folder_of_good_and_bad_videos(talks, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("crop", talks, out, "--workers", "2") == 0
    rows = (out / "clips.tsv").read_text().splitlines()
    assert rows[0] == "id\tvideo\taudio\tframes\tsamples"
    assert rows[1] == "s 1/it's 0\tvideo/s 1/it's 0.mp4\taudio/s 1/it's 0.wav\t8\t5120"
    assert [row.split("\t")[0] for row in rows[1:]] == ["s 1/it's 0", "s 1/it's 1", "s 1/it's 2", "two"]
    report = json.loads((out / "report.json").read_text())
    assert report["videos"] == 8
    assert report["reasons"] == {"bad_name": 1, "no_audio": 1, "no_face": 1, "ok": 4, "unreadable": 1}
    assert report["clips_with_several_faces"] == 1
    assert {Path(entry["source"]).name for entry in report["failed"]} == {
        "noise.mkv", "mute.mov", "broken.webm", "tab\there.mp4"
    }  # fmt: skip
    assert "<td>noise</td><td>no_face</td>" in (out / "report.html").read_text()
    assert (out / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "4 of 8 videos cropped" in capsys.readouterr().out


def test_finished_clips_are_not_done_again_but_missing_or_changed_ones_are(talks, tmp_path, in_process):
    out = tmp_path / "out"
    crop_folder(talks, out, CropSettings())
    crops = {path: path.stat().st_mtime_ns for path in (out / "video").rglob("*.mp4")}
    lost = out / "video" / "s 1" / "it's 1.mp4"
    lost.unlink()
    talking_head(talks / "s 1" / "it's 2.mp4", frames=10)
    (talks / "tab\there.mp4").unlink()
    result = crop_folder(talks, out, CropSettings())
    redone = {path.name for path, time_ in crops.items() if path.stat().st_mtime_ns != time_}
    assert redone == {"it's 1.mp4", "it's 2.mp4"}
    assert result.results["s 1/it's 2"].frames == 10
    assert result.results["noise"].reason == "no_face"


def test_a_line_that_a_kill_cut_short_is_ignored(tmp_path, in_process):
    talks, out = tmp_path / "talks", tmp_path / "out"
    talking_head(talks / "a.mkv", frames=6)
    crop_folder(talks, out, CropSettings())
    journal = next((out / "journal").iterdir())
    journal.write_bytes(journal.read_bytes()[:-20])
    assert crop_folder(talks, out, CropSettings()).results["a"].ok


@pytest.mark.slow
def test_two_runs_at_once_share_a_folder(tmp_path):
    talks, out, alone = tmp_path / "talks", tmp_path / "out", tmp_path / "alone"
    for index in range(4):
        talking_head(talks / f"{index}.mkv", frames=8, shift=0.3 * index)
    runs = [start("crop", talks, out, "--workers", "1") for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert call("crop", talks, alone, "--workers", "1") == 0
    assert files_below(out) == files_below(alone)


def test_a_clip_that_kills_its_worker_is_reported_and_tried_again(tmp_path, monkeypatch):
    talks, out = tmp_path / "talks", tmp_path / "out"
    for name in ("a", "b"):
        talking_head(talks / f"{name}.mkv", frames=6)

    def crash_on_a(function, jobs, workers):
        for job in jobs:
            yield job, Crash("its process died (exit code -11)") if job.name == "a" else function(job)

    monkeypatch.setattr(folder_module, "run_isolated", crash_on_a)
    results = crop_folder(talks, out, CropSettings()).results
    assert results["b"].ok
    assert results["a"].reason == "crashed"
    assert "a.mkv" in results["a"].message
    monkeypatch.setattr(folder_module, "run_isolated", run_in_process)
    assert crop_folder(talks, out, CropSettings()).results["a"].ok


def test_a_full_disk_ends_the_run_and_is_made_good_later(tmp_path, monkeypatch, refused):
    talks, out = tmp_path / "talks", tmp_path / "out"
    talking_head(talks / "a.mkv", frames=6)

    def full(function, jobs, workers):
        for job in jobs:
            yield (
                job,
                CropResult("write_failed", f"{job.video}: cannot be written (No space left on device)"),
            )

    monkeypatch.setattr(folder_module, "run_isolated", full)
    assert "a.mp4: " in refused(call("crop", talks, out))
    assert not (out / "clips.tsv").exists()
    monkeypatch.setattr(folder_module, "run_isolated", run_in_process)
    assert call("crop", talks, out) == 0


def test_other_settings_in_the_same_folder_are_refused(tmp_path, refused, in_process):
    talks, out = tmp_path / "talks", tmp_path / "out"
    talking_head(talks / "a.mkv", frames=6)
    assert call("crop", talks, out) == 0
    assert re.search(
        r"settings\.json: .*size 96 \(now 48\)", refused(call("crop", talks, out, "--size", "48"))
    )


def test_nothing_usable(tmp_path, refused, in_process):
    (tmp_path / "talks").mkdir()
    assert f"{tmp_path / 'talks'}: " in refused(call("crop", tmp_path / "talks", tmp_path / "out"))
    (tmp_path / "talks" / "a.mp4").write_bytes(b"")
    assert "no clip" in refused(call("crop", tmp_path / "talks", tmp_path / "out"))


def test_a_folder_that_version_0_1_cropped_is_finished(tmp_path, monkeypatch):
    source = talking_head(tmp_path / "talks" / "a.mkv", frames=6)
    out, status = tmp_path / "out", source.stat()
    for name in ("video/a.mp4", "audio/a.wav"):
        (out / name).parent.mkdir(parents=True)
        (out / name).write_bytes(b"")
    settings = {"size": 96, "region": "mouth", "stride": 3, "backend": "opencv", "dlib_model": None,
                "landmarks": None, "mean_face": None}  # fmt: skip
    (out / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    entry = {"id": "a", "size": status.st_size, "changed": status.st_mtime_ns, "reason": "ok", "message": "",
             "frames": 6, "samples": 3840, "faces": 1, "source_fps": 25.0, "audio_delay": None,
             "sound_excess": 0.0}  # fmt: skip
    (out / "journal").mkdir()
    (out / "journal" / "01795864000000000000-host-0a1b2c3d.jsonl").write_text(json.dumps(entry) + "\n")
    monkeypatch.setattr(folder_module, "crop_job", None)
    assert crop_folder(tmp_path / "talks", out, CropSettings(stride=3)).results["a"].frames == 6


@pytest.mark.parametrize(("source", "out"), [("a", "a"), ("a/video", "a"), ("a/video/deep", "a")])
def test_crops_are_not_written_over_the_videos(tmp_path, source, out, refused):
    talking_head(tmp_path / source / "clip.mp4", frames=6)
    before = (tmp_path / source / "clip.mp4").read_bytes()
    assert f"{tmp_path / out}: " in refused(call("crop", tmp_path / source, tmp_path / out))
    assert (tmp_path / source / "clip.mp4").read_bytes() == before
