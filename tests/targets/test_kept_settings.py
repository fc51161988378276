"""Settings beside what was made with them."""

import pytest

from av_ssl.errors import DataError
from av_ssl.io import digest, keep_settings


def test_the_same_settings_pass_and_others_are_named(tmp_path):
    path = tmp_path / "deep" / "settings.json"
    keep_settings(path, {"clusters": 5, "layer": 9}, "delete it")
    keep_settings(path, {"clusters": 5, "layer": 9}, "delete it")
    with pytest.raises(DataError, match=r"made with clusters 5 \(now 6\), layer 9 \(now none\); delete it"):
        keep_settings(path, {"clusters": 6}, "delete it")
    with pytest.raises(DataError, match=r"made with checkpoint none \(now aaaaaaaa\.\.\.\)"):
        keep_settings(path, {"clusters": 5, "layer": 9, "checkpoint": "a" * 64}, "delete it")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_file(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=r"s\.json: holds no settings .*; delete it"):
        keep_settings(tmp_path / "s.json", {}, "delete it")


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(DataError, match="cannot be read"):
        digest(tmp_path / "b")
