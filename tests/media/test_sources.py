"""Videos below a folder and their ids."""

import os

import pytest

from av_ssl.errors import DataError
from av_ssl.media.sources import find_audio, find_videos, usable_name
from tests.corpora.trees import touch


def test_ids_are_relative_paths_without_suffix(tmp_path):
    touch(tmp_path, "b/x.v1.mp4", "a.MPG", '-x/it\'s "q".webm', "b/x.txt", ".hidden/y.mp4", "b/._x.mp4")
    assert list(find_videos(tmp_path)) == ['-x/it\'s "q"', "a", "b/x.v1"]


def test_the_output_folder_is_left_out_and_loops_of_links_end(tmp_path):
    touch(tmp_path, "a.mp4", "out/video/a.mp4")
    os.symlink(tmp_path, tmp_path / "loop")
    assert list(find_videos(tmp_path, skip=tmp_path / "out")) == ["a"]


def test_two_videos_with_one_id_are_refused(tmp_path):
    touch(tmp_path, "a.mp4", "a.avi")
    with pytest.raises(DataError, match=r"a\.mp4: .*a\.avi"):
        find_videos(tmp_path)


def test_an_empty_folder_and_no_folder(tmp_path):
    with pytest.raises(DataError, match="video"):
        find_videos(tmp_path)
    with pytest.raises(DataError, match="recording"):
        find_audio(tmp_path)
    with pytest.raises(DataError, match="absent: "):
        find_videos(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "usable"), [("a b/c'", True), ("é", True), ("a\tb", False), ("a\nb", False), ("\udcff", False)]
)
def test_names_that_fit_a_manifest(name, usable):
    assert usable_name(name) is usable
