"""Numbers, histograms and page of a cropping run, from results made up here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.crop_folder import FolderResult
from av_ssl.media.crop_report import contact_sheet, read_clips, summary, write_report
from av_ssl.media.crops import CropResult
from av_ssl.media.video import write_video


def clip(
    frames: int, faces: int = 1, fps: float = 25.0, delay: float | None = None, excess: float = 0.0, **checks
) -> CropResult:
    return CropResult("ok", "", frames, frames * 640, faces, fps, delay, excess, **checks)


@pytest.fixture
def folder() -> FolderResult:
    results = {
        "a": clip(30, delay=1.2, excess=0.3),
        "b": clip(49, faces=2, fps=29.97, delay=0.8, excess=-0.064),
        "c": clip(2000, delay=-2.0, excess=1.5),
        "d/e": clip(
            50,
            fps=29.97,
            sound_gaps=0.6,
            silent=True,
            face_share=0.9,
            inside=0.85,
            face_changes=1,
            sound_track="2 of 3",
        ),
        "f": CropResult("no_face", "no face was found", 40, 25600, 0, 25.0),
        "g <b>": CropResult("unreadable", "/x/g <b>.mp4: cannot be decoded & so on"),
    }
    return FolderResult({name: Path("/x", f"{name}.mp4") for name in results}, results)


def test_rates_and_histograms(folder):
    report = summary(folder)
    assert report["reasons"] == {"no_face": 1, "ok": 4, "unreadable": 1}
    assert report["hours"] == round(2129 / 25 / 3600, 4)
    assert report["no_face_rate"] == 0.2  # of those that could be decoded
    assert report["several_faces_rate"] == 0.2
    assert report["source_frame_rates"] == {"25.000": 3, "29.970": 2}
    assert report["seconds"] == {
        "shortest": 1.2, "median": 1.98, "longest": 80.0, "histogram": {"1": 2, "2": 1, "30": 1}
    }  # fmt: skip
    assert report["audio_delay_frames"] == {
        "estimated": 3, "unknown": 1, "median": 0.8, "histogram": {"-2": 1, "1": 2}
    }  # fmt: skip
    assert (report["sound_cut"], report["sound_filled"]) == (2, 0)
    assert [entry["id"] for entry in report["failed"]] == ["f", "g <b>"]
    assert report["face_share"] == {"lowest": 0.9, "quartile": 0.9, "median": 0.9}
    assert (report["inside"]["lowest"], report["clips_with_face_changes"]) == (0.85, 1)
    assert (report["silent"], report["sound_gaps"], report["sound_drift"]) == (1, 1, 0)
    assert [entry["id"] for entry in report["remarks"]] == ["d/e"]
    remark = report["remarks"][0]["remark"]
    assert all(part in remark for part in ("0.60 s of audio", "audio track 2 of 3", "no mouth in 10% of"))


def test_nothing_came_out():
    report = summary(FolderResult({"a": Path("a.mp4")}, {"a": CropResult("unreadable", "bad")}))
    assert (report["no_face_rate"], report["hours"], report["seconds"]) == (0.0, 0.0, {"histogram": {}})


def test_the_page_shows_all_of_it_and_needs_nothing_else(folder, tmp_path):
    for name in ("a", "b", "c"):  # the crop of d/e has gone
        write_video(tmp_path / "video" / f"{name}.mp4", np.full((3, 96, 96), 99, np.uint8))
    report = write_report(folder, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "<td>d/e</td><td>the audio is silent; " in page
    assert "<td>g &lt;b&gt;</td><td>unreadable</td>" in page
    assert "decoded &amp; so on" in page
    assert "<b>" not in page
    assert "http" not in page
    bars = re.findall(r"<td>(-?[\d.]+)</td><td>(\d+)</td><td>(█+)</td>", page)
    assert [(label, count, len(bar)) for label, count, bar in bars] == [
        ("1", "2", 40), ("2", "1", 20), ("30", "1", 20),  # seconds
        ("25.000", "3", 40), ("29.970", "2", 27),
        ("0", "1", 13), ("1", "3", 40), ("2", "1", 13),  # faces
        ("-2", "1", 20), ("1", "2", 40),  # delay
    ]  # fmt: skip
    assert "data:image/png;base64,iVBOR" in page
    assert (tmp_path / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert [row[0] for row in read_clips(tmp_path)] == ["a", "b", "c", "d/e"]


def test_names_that_are_not_utf_8_are_reported(tmp_path):
    name = "a\udcff"
    folder = FolderResult({name: Path(f"{name}.mp4")}, {name: CropResult("bad_name", "rename it")})
    write_report(folder, tmp_path)
    assert "<td>a?</td><td>bad_name</td>" in (tmp_path / "report.html").read_text()


def test_a_clip_list_that_was_edited_is_refused_with_its_line(folder, tmp_path):
    write_report(folder, tmp_path)
    rows = (tmp_path / "clips.tsv").read_text()
    (tmp_path / "clips.tsv").write_text(rows.replace("\t49\t", "\tmany\t"))
    with pytest.raises(DataError, match=r"clips\.tsv, line 3"):
        read_clips(tmp_path)
    (tmp_path / "clips.tsv").write_text("name\n")
    with pytest.raises(DataError, match=r"clips\.tsv, line 1"):
        read_clips(tmp_path)


def test_crops_lie_in_a_grid_with_their_names_below():
    crops = [(f"clip {number}", np.full((96, 96), 20 * number, np.uint8)) for number in range(10)]
    sheet = contact_sheet(crops)
    assert sheet.shape == (2 * 150, 8 * 136)
    assert sheet[50, 50] == 0
    assert sheet[50, 50 + 136] == 20
    assert sheet[150 + 50, 50] == 160
    assert sheet[132:146, 4:132].min() < 100  # the name


def test_clips_of_earlier_runs_stay_listed_as_long_as_they_are_there(folder, tmp_path):
    write_report(folder, tmp_path)
    for name in ("a", "b"):
        for path in (tmp_path / f"video/{name}.mp4", tmp_path / f"audio/{name}.wav"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    results = {"b": CropResult("no_face", "no face was found", 40, 25600, 0, 25.0), "h": clip(50)}
    write_report(FolderResult({name: Path("/x", f"{name}.mp4") for name in results}, results), tmp_path)
    assert [row[0] for row in read_clips(tmp_path)] == ["a", "h"]  # b has failed now, c and d/e are gone
