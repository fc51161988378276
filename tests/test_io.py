"""Files that are complete or not there, texts, growing arrays, settings beside what was made with them."""

import os
import resource
import socket
import wave
from contextlib import contextmanager

import numpy as np
import pytest

from av_ssl.errors import DataError, MediaError
from av_ssl.io import (
    digest,
    existing,
    growing_array,
    keep_settings,
    read_text,
    remove_abandoned,
    wav_fault,
    write_atomically,
)

# -- files ---------------------------------------------------------------------------------------------------


@contextmanager
def small_disk():
    """Files cannot grow beyond 1000 bytes, so that larger writes stop halfway as on a full disk.

    Pytest's own output, which may go to a file, is written outside.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stated", "extra", "fault"),
    [
        ({}, b"", ""),
        ({}, b"LIST\4\0\0\0abcd", ""),
        ({}, bytes(64), ""),  # behind the file
        ({4: 0, 40: 0}, b"", ""),  # written to a pipe
        ({40: 64000}, b"", ""),
        ({40: 16000}, b"", "16000 bytes behind"),
        ({}, None, "is truncated by"),
        ({}, b"RIFF\4\0\0\0WAVE", "another wav file"),
    ],
)
def test_lengths_of_wav_files(tmp_path, stated, extra, fault):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.full(16000, 1000, "<i2").tobytes())
    content = bytearray(path.read_bytes())
    for place, value in stated.items():
        content[place : place + 4] = value.to_bytes(4, "little")
    path.write_bytes(content[:-100] if extra is None else content + extra)
    assert fault in wav_fault(path)
    assert bool(fault) == bool(wav_fault(path))


def test_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(MediaError, match=r"new/a\.bin: "), small_disk():
        write_atomically(tmp_path / "new" / "a.bin", bytes(5000))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with pytest.raises(MediaError, match=r"a\.mp4"), small_disk():
        write_atomically(path, bytes(5000))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(MediaError, match=r"folder/a\.bin: "):
        write_atomically(tmp_path / "folder" / "a.bin", b"")


def test_only_abandoned_partial_files_are_removed(tmp_path):
    host = socket.gethostname()
    ours = tmp_path / "deep" / f".partial-{host}-{os.getpid()}-ab"
    dead = tmp_path / "deep" / f".partial-{host}-99999999-ab"
    elsewhere = tmp_path / ".partial-another.host-99999999-ab"
    other = tmp_path / "clip.mp4"
    ours.parent.mkdir()
    for path in (ours, dead, elsewhere, other):
        path.write_bytes(b"")
    assert remove_abandoned(tmp_path) == 1
    assert not dead.exists()
    assert ours.exists()
    assert elsewhere.exists()
    assert other.exists()
    assert remove_abandoned(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-16-be with mark"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_of_all_editors_are_the_same(tmp_path, encoding, end):
    text = f"é{end}\u2028b{end}"
    name, _, mark = encoding.partition(" ")
    (tmp_path / "a").write_bytes((("\ufeff" if mark else "") + text).encode(name))
    assert read_text(tmp_path / "a", "") == "é\n\u2028b\n"


def test_joined_files_have_no_marks_inside(tmp_path):
    (tmp_path / "a").write_bytes("a\n".encode("utf-8-sig") + "b\n".encode("utf-8-sig"))
    assert read_text(tmp_path / "a", "") == "a\nb\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"ok\ncaf\xe9\n", r"a, line 2: is not UTF-8"),
        ("ab".encode("utf-16-le"), r"a: .*UTF-16 without"),
        (b"\xff\xfea", r"a, line 1: is not UTF-16"),
        (b"\x00\x01\x02", r"a: is no text"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, match):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=match + ".*; fix it|" + match + ".*, or fix it"):
        read_text(tmp_path / "a", "fix it")


def test_a_name_in_another_unicode_form(tmp_path):
    there = tmp_path / "e\u0301" / "u\u0308.txt"
    there.parent.mkdir()
    there.write_text("")
    assert existing(tmp_path / "\u00e9" / "\u00fc.txt") == there
    assert existing(there) == there
    assert existing(tmp_path / "\u00e9" / "\u00f6.txt").exists() is False


# -- arrays and settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_as_one_plain_array(dtype, tmp_path):
    path = tmp_path / "new" / "a.npy"
    rows = np.random.default_rng(0).normal(size=(1234, 7)).astype(dtype)
    with growing_array(path, 7, dtype) as append:
        append(rows[:1000])
        append(rows[1000:1000])
        append(rows[1000:])
        assert not path.exists()
    back = np.load(path, mmap_mode="r", allow_pickle=False)
    assert back.dtype == dtype
    assert np.array_equal(back, rows)
    assert [file.name for file in path.parent.iterdir()] == ["a.npy"]


def test_no_rows(tmp_path):
    with growing_array(tmp_path / "a.npy", 3, "float32"):
        pass
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (0, 3)


def test_an_error_leaves_nothing(tmp_path):
    def stopped():
        with growing_array(tmp_path / "a.npy", 3, "float32") as append:
            append(np.zeros((2, 3)))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        stopped()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MediaError, match=r"file/a\.npy: "),
        growing_array(tmp_path / "file" / "a.npy", 3, "float32"),
    ):
        pass


def test_the_same_settings_pass_and_others_are_named(tmp_path):
    path = tmp_path / "deep" / "settings.json"
    for _ in range(2):
        keep_settings(path, {"clusters": 5, "layer": 9}, "delete it")
    assert path.read_text() == '{\n "clusters": 5,\n "layer": 9\n}\n'
    with pytest.raises(DataError, match=r"json: .*clusters 5 \(now 6\), layer 9 \(now none\); delete it"):
        keep_settings(path, {"clusters": 6}, "delete it")
    with pytest.raises(DataError, match=r"made with checkpoint none \(now aaaaaaaa\.\.\.\)"):
        keep_settings(path, {"clusters": 5, "layer": 9, "checkpoint": "a" * 64}, "delete it")


def test_settings_that_came_later_have_defaults(tmp_path):
    path = tmp_path / "settings.json"
    keep_settings(path, {"size": 96}, "")
    keep_settings(path, {"size": 96, "backend": "none"}, "", {"size": 88, "backend": "none"})
    with pytest.raises(DataError, match=r"backend none \(now mesh\)"):
        keep_settings(path, {"size": 96, "backend": "mesh"}, "", {"size": 88, "backend": "none"})


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_file(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=r"s\.json: .*; delete it"):
        keep_settings(tmp_path / "s.json", {}, "delete it")


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(DataError, match="b: cannot be read"):
        digest(tmp_path / "b")
