"""Arrays that grow on disk, and settings beside what was made with them."""

import numpy as np
import pytest

from av_ssl.errors import DataError, MediaError
from av_ssl.io import digest, growing_array, keep_settings


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
        pytest.raises(MediaError, match=r"file/a\.npy: cannot be written"),
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
