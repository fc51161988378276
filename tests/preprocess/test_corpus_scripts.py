"""The script of every corpus, from its owners' naming to every file that training reads."""

import os
import subprocess
from pathlib import Path

import pytest

from av_ssl.corpora import CORPORA
from av_ssl.data.noise import read_noise_list
from av_ssl.manifest import read_manifest
from tests.corpora import trees
from tests.media.synthetic import moving_face, tone, write_clip

PREPROCESS = Path(__file__).resolve().parents[2] / "preprocess"
NAMES = sorted(set(CORPORA) - {"folder"})
SPLITS = ("train", "valid", "test")
TOKENIZER = {"spm.model", "spm.vocab", "dict.wrd.txt"}
LEFT_BY_CROP = {"clips.tsv", "report.json", "settings.json", "contact_sheet.png"}
SUFFIXES = {
    "lrs3": {"tsv", "wrd", "spk"},
    "lrs2": {"tsv", "wrd", "spk"},
    "voxceleb1": {"tsv", "spk"},
    "voxceleb2": {"tsv", "spk"},
    "grid": {"tsv", "wrd", "spk"},
    "ravdess": {"tsv", "wrd", "spk", "emo"},
    "crema_d": {"tsv", "wrd", "spk", "emo"},
    "iemocap": {"tsv", "wrd", "spk", "emo"},
}
PARTS = {"lrs3": "30h_data", "lrs2": "main_data"}


def run(script, environment, *words, **options):
    command = ["bash", str(PREPROCESS / script), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


def files(folder):
    return {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("report.")}


def list_files(name):
    lists = {f"{split}.{suffix}" for split in SPLITS for suffix in SUFFIXES[name]}
    classes = {f"classes.{kind}.txt" for kind in SUFFIXES[name] & {"spk", "emo"}}
    return lists | classes | (TOKENIZER if "wrd" in SUFFIXES[name] else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_file_comes_out_and_is_read_by_training(tmp_path, environment_without_faces, name):
    source, out = getattr(trees, name)(tmp_path / "in put"), tmp_path / "out put"
    words = [source, out, "--workers", "1", "--vocab-size", "60", "--size", "32"]
    run(f"{name}.sh", environment_without_faces, *words, check=True)
    left = set() if CORPORA[name].audio_only else LEFT_BY_CROP
    assert files(out) - {"report.json"} == list_files(name) | left - {"report.json"}
    folders = [out]
    if name in PARTS:
        assert files(out / PARTS[name]) == list_files(name)
        folders.append(out / PARTS[name])
    for folder in folders:
        for split in SPLITS:
            clips = read_manifest(folder / f"{split}.tsv")
            assert all(clip.audio.is_file() for clip in clips)
            assert all(CORPORA[name].audio_only or clip.video.is_file() for clip in clips)
            assert {(clip.frames, clip.samples) for clip in clips} == {(25, 16000)}
            for suffix in SUFFIXES[name] - {"tsv"}:
                labels = (folder / f"{split}.{suffix}").read_text().splitlines()
                assert len(labels) == len(clips)
                assert all(labels)
    for split in SPLITS:
        assert all(path.is_file() for path in read_noise_list(out / "noise" / f"{split}.tsv"))


@pytest.mark.slow
def test_lrs3_with_real_faces_and_a_clip_to_be_cut(tmp_path, environment):
    source, out = tmp_path / "lrs3", tmp_path / "out"
    for name in ("trainval/a/50001", "trainval/b/50001", "test/c/00001"):
        trees.lrs_clip(source, name, f"SAY {name[0]}")
        write_clip(source / f"{name}.mp4", moving_face(8), tone(0.32))
    # The talk of 17 s has a pause after 8 s; five frames a second are quickly made.
    trees.lrs_clip(source, "pretrain/d/00001", "FIRST HALF SECOND HALF", [(0, 4), (4, 8), (9, 12), (12, 17)])
    write_clip(source / "pretrain/d/00001.mp4", moving_face(85, 0.5), tone(17), fps=5)
    words = [source, out, "--workers", "1", "--vocab-size", "30", "--stride", "20", "--valid", "1"]
    run("lrs3.sh", environment, *words, check=True)
    lengths = {clip.id: clip.frames for split in SPLITS for clip in read_manifest(out / f"{split}.tsv")}
    assert lengths == {
        "pretrain/d/00001_00": 205,  # to 8.2 s
        "pretrain/d/00001_01": 205,  # from 8.8 s to the end
        "trainval/a/50001": 8,
        "trainval/b/50001": 8,
        "test/c/00001": 8,
    }
    assert (out / "train.wrd").read_text().splitlines()[:2] == ["first half", "second half"]


@pytest.mark.parametrize("name", ["lrs3", "grid"])
def test_another_corpus_ends_the_script_before_anything_is_cropped(tmp_path, environment, capsys, name):
    trees.crema_d(tmp_path / "in")
    done = run(f"{name}.sh", environment, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1
    assert "preprocess/crema_d.sh" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_help_and_wrong_arguments(name):
    done = run(f"{name}.sh", None, "--help")
    assert done.returncode == 0
    assert f"Usage: preprocess/{name}.sh IN OUT [options]" in done.stdout
    assert "--valid-ids FILE" in done.stdout
    done = run(f"{name}.sh", None, "in", "out", "--sped", "1")
    assert done.returncode == 2
    assert f"{name}.sh: unknown option --sped" in done.stderr


def test_every_step_gets_its_options(tmp_path):
    command = tmp_path / "bin" / "av-ssl"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nfor word; do printf "<%s>" "$word"; done; echo\n')
    command.chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.wrd").write_text("a\n")
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    words = "--cluster slurm --workers 50 --slurm-cpus 8 --slurm-option account=a --seed 3 --valid 0.1"
    words += " --vocab-size 99 --ids LIST --fold p6-1"
    done = run("grid.sh", environment, "a b", *words.split(), "out", cwd=tmp_path, check=True)
    assert [line[1:-1].split("><") for line in done.stdout.splitlines()] == [
        ["crop", "--corpus", "grid", "--cluster", "slurm", "--workers", "50", "--slurm-cpus", "8",
         "--slurm-option", "account=a", "--ids", "LIST", "--", "a b", "out"],
        ["data", "manifest", "--corpus", "grid", "--seed", "3", "--valid", "0.1", "--ids", "LIST",
         "--fold", "p6-1", "--", "a b", "out"],
        ["data", "vocabulary", "--type", "word", "--size", "99", "--", "out"],
        ["data", "noise", "--seed", "3", "--", "out"],
    ]  # fmt: skip


def test_musan_script_passes_its_words_on(tmp_path, environment, capsys):
    done = run("musan.sh", environment, tmp_path, tmp_path / "out", "--lines", "10")
    assert done.returncode == 1
    assert f"{tmp_path}: is not MUSAN" in capsys.readouterr().err
    assert run("musan.sh", environment, "--help").returncode == 0
    assert "--speech-hours" in capsys.readouterr().out
