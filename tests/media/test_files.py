"""No file that looks finished but is not."""

import os
import resource
import socket

import numpy as np
import pytest

from av_ssl.errors import MediaError
from av_ssl.io import remove_abandoned, write_atomically
from av_ssl.media.video import write_video


@pytest.fixture
def small_disk():
    """Files cannot grow beyond 1000 bytes, so that larger writes stop halfway as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing(tmp_path, small_disk):
    with pytest.raises(MediaError, match=r"new/a\.bin: "):
        write_atomically(tmp_path / "new" / "a.bin", bytes(5000))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_keeps_what_was_there(tmp_path, small_disk):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with pytest.raises(MediaError, match=r"a\.mp4"):
        write_video(path, np.random.default_rng(0).integers(0, 255, (20, 96, 96), np.uint8))
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
