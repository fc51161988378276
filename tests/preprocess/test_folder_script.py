"""preprocess/folder.sh from videos to lists, with names that break careless scripts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from av_ssl.cli.main import main
from av_ssl.layout import SPLITS
from av_ssl.manifest import lists_clips, read_manifest
from tests.corpora.trees import touch
from tests.media.synthetic import talking_head

SCRIPT = Path(__file__).resolve().parents[2] / "preprocess" / "folder.sh"
NAMES = ["plain", "with space", 'it\'s "q"', "-dash", "semi;colon $HOME *[a]"]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.slow
def test_from_videos_to_everything(tmp_path, environment, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "-in 'put\""
    for index, name in enumerate(NAMES):
        talking_head(source / name / f"{name}.mkv", frames=6, shift=0.5 * index)
        (source / name / f"{name}.txt").write_text(f"Text:  WORD{index} OF {index}\n")
    words = ["--workers", "2", "--labelled", "2", "--vocab-size", "50", "--seed", "3", "--size", "48"]
    command = ["bash", str(SCRIPT), source.name, "-out put", *words]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    out = tmp_path / "-out put"
    clips = [clip for split in SPLITS for clip in read_manifest(out / f"{split}.tsv")]
    assert {clip.id for clip in clips} == {f"{name}/{name}" for name in NAMES}
    assert all(clip.video.is_file() and clip.audio.is_file() for clip in clips)
    expected = "train.wrd valid.wrd test.wrd spm.model dict.wrd.txt report.json noise/valid.tsv"
    for name in [*expected.split(), "contact_sheet.png", "labelled_2/train.wrd", "labelled_2/spm.model"]:
        assert (out / name).is_file(), name
    # Once more: nothing is cropped again, everything stays as it is.
    before = {path: path.stat().st_mtime_ns for path in (out / "video").rglob("*.mp4")}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "video").rglob("*.mp4")}


def test_without_transcripts_no_vocabulary(tmp_path, environment_without_faces):
    for index in range(3):
        touch(tmp_path / "in", f"{index}.mkv")
    command = ["bash", str(SCRIPT), str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]
    environment = environment_without_faces
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert "no vocabulary is made" in done.stdout
    assert not (tmp_path / "out" / "spm.model").exists()
    assert (tmp_path / "out" / "noise" / "train.tsv").exists()


def test_one_video(tmp_path, environment_without_faces, capsys):
    """Training needs more, but transcripts and features do not."""
    touch(tmp_path / "in", "a.mkv")
    (tmp_path / "in" / "a.txt").write_text("bin blue at f two now")
    out = tmp_path / "out"
    command = ["bash", str(SCRIPT), str(tmp_path / "in"), str(out), "--workers", "1", "--size", "96"]
    subprocess.run(command, check=True, env=environment_without_faces, capture_output=True)
    assert [split for split in SPLITS if lists_clips(out / f"{split}.tsv")] == ["train"]
    capsys.readouterr()
    assert main(["data", "check", str(out), "--workers", "1"]) == 0
    remarks = [line for line in capsys.readouterr().out.splitlines() if "lists no clips" in line]
    assert len(remarks) == 1
    assert f"{out / 'valid.tsv'}: " in remarks[0]
    assert "training needs some" in remarks[0]


@pytest.mark.parametrize(
    "words", [[], ["in"], ["in", "out", "more"], ["in", "out", "--sped", "1"], ["in", "out", "--seed"]]
)
def test_wrong_arguments_end_with_2(words):
    done = subprocess.run(["bash", str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "folder.sh:" in done.stderr


def test_help():
    done = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_an_error_of_a_step_ends_the_script(tmp_path, environment, capsys):
    (tmp_path / "in").mkdir()
    command = ["bash", str(SCRIPT), str(tmp_path / "in"), str(tmp_path / "out")]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1
    assert f"{tmp_path / 'in'}: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "train.tsv").exists()
