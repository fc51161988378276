from __future__ import annotations

from pathlib import Path

import pytest

from av_ssl.data.dataset import BadClips
from av_ssl.errors import DataError, MediaError
from av_ssl.manifest import Clip


def clip(id: str) -> Clip:
    return Clip(id, Path(f"{id}.mp4"), None, 10, 0, 2)


IDS = {f"c{k}" for k in range(250)}


def test_each_clip_is_written_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "made" / "bad_clips.train.tsv"
    bad = BadClips(path, IDS)
    for _ in range(3):
        bad.record(clip("c1"), MediaError("c1.mp4: broken\nin two lines"))
    BadClips(path, IDS).record(clip("c1"), MediaError("again, by another process"))
    assert path.read_text() == "c1\tc1.mp4: broken in two lines\n"
    assert caplog.text.count("clip c1 is left out: c1.mp4: broken") == 1


@pytest.mark.parametrize("shared", [True, False])
def test_more_than_one_percent_stops_with_the_list(tmp_path: Path, shared: bool) -> None:
    bad = BadClips(tmp_path / "bad.tsv" if shared else None, IDS)
    for id in ("c1", "c2"):
        bad.record(clip(id), MediaError(f"{id}.mp4: broken"))
    with pytest.raises(DataError, match="3 clips cannot be read, 2 would be tolerated") as caught:
        bad.record(clip("c3"), MediaError("c3.mp4: empty"))
    assert "c1: c1.mp4: broken" in str(caught.value)
    assert "c3: c3.mp4: empty" in str(caught.value)


def test_one_reason_for_all_is_named_once() -> None:
    """As where crops of one size are given to a model of another."""
    bad = BadClips(None, {"c1", "c2"})
    bad.record(clip("c1"), MediaError("c1.mp4: frames of 96x96 pixels; set task.image_crop_size"))
    with pytest.raises(DataError, match=r"all for one reason: frames of 96x96 .*They are c1, c2$") as caught:
        bad.record(clip("c2"), MediaError("c2.mp4: frames of 96x96 pixels; set task.image_crop_size"))
    assert "\n" not in str(caught.value)


def test_clips_of_other_processes_count_those_of_other_data_sets_do_not(tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("c1\tx\nc2\tx\nunknown\tx\n")
    with pytest.raises(DataError, match="3 clips cannot be read"):
        BadClips(path, IDS).record(clip("c3"), MediaError("x"))


def test_one_bad_clip_of_a_small_set_is_tolerated(tmp_path: Path) -> None:
    bad = BadClips(tmp_path / "bad.tsv", {"c1", "c2"})
    bad.record(clip("c1"), MediaError("x"))
    with pytest.raises(DataError, match="2 clips cannot be read, 1 would be tolerated"):
        bad.record(clip("c2"), MediaError("x"))


def test_list_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    bad = BadClips(tmp_path / "file" / "bad.tsv", IDS)
    bad.record(clip("c1"), MediaError("x"))
    assert "cannot be written" in caplog.text
    assert set(bad.reasons) == {"c1"}
