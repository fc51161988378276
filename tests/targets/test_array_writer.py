"""Arrays that grow on disk."""

import numpy as np
import pytest

from av_ssl.errors import MediaError
from av_ssl.io import growing_array


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


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MediaError, match=r"file/a\.npy: cannot be written"),
        growing_array(tmp_path / "file" / "a.npy", 3, "float32"),
    ):
        pass
