"""Lists of ids in files."""

import pytest

from av_ssl.corpora import CORPORA
from av_ssl.corpora.corpus import read_ids, require_known
from av_ssl.errors import DataError

LRS3 = CORPORA["lrs3"]


def test_ids_and_their_lines(tmp_path):
    path = tmp_path / "ids"
    path.write_text("trainval/a/00001\n\ntrainval/b/00002.mp4\r\n")
    ids = read_ids(path, LRS3)
    assert ids == {"trainval/a/00001": 1, "trainval/b/00002": 3}
    with pytest.raises(DataError, match=r"ids, line 3: .*trainval/b/00002"):
        require_known(path, ids, {"trainval/a/00001"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "ids: "),
        (b"\n\n", "ids: "),
        (b"a\nb\na.mp4\n", "ids, line 3: a .* line 1"),
        (b"\xff", "ids: .*UTF-8"),
    ],
)
def test_broken_lists_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ids(tmp_path / "ids", LRS3)
