"""The pages on preprocessing: code and shell lines do what they say, every reason and script is named."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from av_ssl.cli.main import main
from av_ssl.corpora import CORPORA
from av_ssl.manifest import read_manifest
from av_ssl.media import crop_folder, crops
from av_ssl.media.audio import write_audio
from av_ssl.media.video import write_video
from tests.corpora import trees

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/manifest_by_hand.md").read_text(encoding="utf-8")
README = (REPOSITORY / "docs/preprocessing.md").read_text(encoding="utf-8")
REASONS = [
    crops.UNREADABLE, crops.NO_VIDEO, crops.NO_AUDIO, crops.NO_FACE, crops.NO_LANDMARKS, crops.TOO_SHORT,
    crops.WRITE_FAILED, crop_folder.CRASHED, crop_folder.BAD_NAME,
]  # fmt: skip


def test_the_code_writes_a_list_that_training_reads(tmp_path):
    for name in ("a/1", "b 2"):
        write_video(tmp_path / f"DATA/video/{name}.mp4", np.zeros((7, 96, 96), np.uint8))
        write_audio(tmp_path / f"DATA/audio/{name}.wav", np.zeros(7 * 640, np.int16))
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    clips = read_manifest(tmp_path / "DATA/train.tsv")
    assert [(clip.id, clip.frames, clip.samples) for clip in clips] == [("a/1", 7, 4480), ("b 2", 7, 4480)]
    assert all(clip.video.is_file() and clip.audio.is_file() for clip in clips)


def test_lists_of_two_corpora_are_joined(tmp_path):
    for corpus, folder in (("lrs3", "LRS3"), ("voxceleb2", "VOXCELEB2")):
        source = getattr(trees, corpus)(tmp_path / corpus)
        out = trees.clip_list(tmp_path / folder, list(CORPORA[corpus].read(source)))
        assert main(["data", "manifest", "--corpus", corpus, str(source), str(out)]) == 0
    lines = re.search(r"    mkdir BOTH\n(    .*\n)+", PAGE)[0]
    subprocess.run(["bash", "-ec", lines], cwd=tmp_path, check=True)
    joined = read_manifest(tmp_path / "BOTH/train.tsv")
    parts = [read_manifest(tmp_path / folder / "train.tsv") for folder in ("LRS3", "VOXCELEB2")]
    assert [clip.id for clip in joined] == [clip.id for part in parts for clip in part]


def test_every_corpus_has_a_script_that_the_page_names():
    for name in [*CORPORA, "musan"]:
        assert (REPOSITORY / "preprocess" / f"{name}.sh").stat().st_mode & 0o111
        assert f"preprocess/{name}.sh" in README


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_explained(reason):
    assert f"`{reason}`" in README
