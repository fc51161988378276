from __future__ import annotations

import logging
from pathlib import Path

import pytest

from av_ssl.errors import DataError
from av_ssl.layout import START_FOLDER
from av_ssl.manifest import Clip, keep_by_length, manifest_part, read_manifest
from tests.data_folder import listed_clips


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_absolute_and_relative_manifests_give_the_same_clips(tmp_path: Path) -> None:
    absolute = write(tmp_path / "old.tsv", "/", "s1/a\t/data/video/a.mp4\t/data/audio/a.wav\t75\t48000")
    relative = write(tmp_path / "new.tsv", "/data", "s1/a\tvideo/a.mp4\taudio/a.wav\t75\t48000")
    expected = [Clip("s1/a", Path("/data/video/a.mp4"), Path("/data/audio/a.wav"), 75, 48000, line=2)]
    assert read_manifest(absolute) == read_manifest(relative) == expected


def test_colons_spaces_and_non_ascii_names_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "/d", "é:1\tv/é: 1.mp4\ta/é: 1.wav\t10\t6400")
    (clip,) = read_manifest(path)
    assert clip.id == "é:1"
    assert clip.video == Path("/d/v/é: 1.mp4")
    assert clip.audio == Path("/d/a/é: 1.wav")


def test_lengths_are_the_last_two_of_six_columns(tmp_path: Path) -> None:
    (clip,) = read_manifest(write(tmp_path / "t.tsv", "/", "a\tv\tw\ten\t75\t48000"))
    assert (clip.frames, clip.samples) == (75, 48000)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_editors_write(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(end.join(["/data", "é\tv\tw\t75\t48000", ""]).encode(encoding))
    assert read_manifest(path) == [Clip("é", Path("/data/v"), Path("/data/w"), 75, 48000, 2)]


def test_a_relative_root_starts_where_the_command_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    path = write(tmp_path / "lists.tsv", "clips", "a\tv\t\t75\t0")
    (start / "run").mkdir(parents=True)
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(start)
    assert read_manifest(path)[0].video == tmp_path / "clips" / "v"
    assert manifest_part(path, read_manifest(path)).startswith(f"{tmp_path / 'clips'}\n")
    (start / "clips").mkdir()
    assert read_manifest(path)[0].video == start / "clips" / "v"
    monkeypatch.chdir(start / "run")  # as hydra does
    monkeypatch.setenv(START_FOLDER, str(start))
    assert read_manifest(path)[0].video == start / "clips" / "v"
    assert manifest_part(path, read_manifest(path)) == path.read_text()


def test_white_space_at_line_ends_and_at_the_end_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"/\r\na\tv\tw\t75\t48000\t\r\n\n")
    (clip,) = read_manifest(path)
    assert (clip.frames, clip.samples) == (75, 48000)


def test_empty_columns_mean_no_stream(tmp_path: Path) -> None:
    audio_only, video_only = read_manifest(
        write(tmp_path / "t.tsv", "/", "a\t\tw\t75\t48000", "b\tv\t\t75\t0")
    )
    assert audio_only.video is None
    assert video_only.audio is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no clips"),
        (b"/data\n", "lists no clips"),
        (b"/\na\tv\tw\t75\t48000\nb\tv\t75\t48000\n", "line 3: 4 columns instead of 5"),
        (b"/\n\na\tv\tw\t75\t48000\n", "line 2: 1 columns instead of 5"),
        (b"/\na\tv\tw\t75.5\t48000\n", "line 2: lengths '75.5' and '48000' are not whole numbers"),
        (b"/\n\xff\tv\tw\t75\t48000\n", "line 2: is not UTF-8"),
        ("/\na\tv\tw\t75\t48000\n".encode("utf-16-le"), "UTF-16"),
        (b"a\tv\tw\t75\t48000\nb\tv\tw\t75\t48000\n", "line 1: .*root directory"),
        (b"nowhere\na\tv\tw\t75\t48000\n", "line 1: .*'nowhere'"),
        (b"/\na\tv\tw\t75\t48000\nb\tv\tw\t75\t48000\na\tx\ty\t75\t48000\n", "line 4: id 'a' .*line 2"),
        ("/\n\u00e9\tv\tw\t75\t48000\ne\u0301\tv\tw\t75\t48000\n".encode(), "line 3: id .*line 2"),
    ],
)
def test_malformed_manifests_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid\.tsv: cannot be read \(No such file"):
        read_manifest(tmp_path / "valid.tsv")


def test_bounds_of_length_are_included(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert keep_by_length(listed_clips(4, 5, 500, 501, 502), 5, 500) == [1, 2]
    assert "kept 2 of 5 clips; 1 have fewer than 5 frames, 2 more than 500" in caplog.text
    assert keep_by_length(listed_clips(4, 501), None, None) == [0, 1]


def test_no_clip_left(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="none of 2 clips has 10 to 20 video frames"):
        keep_by_length(listed_clips(5, 21), 10, 20)
