"""`av-ssl score` with an untrained classifier."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from av_ssl.checkpoints.files import write_stored
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.inference import Classifier
from tests.classification.tiny import TASK, classifier

from .conftest import call

SPEAKERS = ("id10001", "id10002", "id10003")
CLASSES = ["calm", "glad", "sour"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = classifier(streams="audio").eval()
    cfg = {**OmegaConf.to_container(model.cfg, enum_to_str=True), "_name": "av_classifier"}
    path = tmp_path_factory.mktemp("model") / "checkpoint.pt"
    stored = StoredModel(path, {"model": cfg, "task": TASK}, dict(model.state_dict()), None, [], CLASSES)
    write_stored(stored, path)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of each speaker, without video."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    lines = [str(folder)]
    for speaker in SPEAKERS:
        for number in (1, 2):
            name = f"{speaker}-{number}"
            samples = int(rng.integers(6000, 16000))
            soundfile.write(folder / f"{name}.wav", rng.normal(0, 3000, samples).astype(np.int16), 16000)
            lines.append(f"{speaker}/video/{number:05d}\t\t{name}.wav\t0\t{samples}")
    (folder / "test.tsv").write_text("\n".join(lines) + "\n")
    (folder / "test.spk").write_text("".join(f"{speaker}\n" * 2 for speaker in SPEAKERS))
    (folder / "test.emo").write_text("calm\nglad\nsour\nunheard-of\nglad\nsour\n")
    return folder / "test.tsv"


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    ids = [f"{speaker}/video/{number:05d}.wav" for speaker in SPEAKERS for number in (1, 2)]
    pairs = [f"{int(a[:7] == b[:7])} {a} {b}\n" for a in ids for b in ids if a < b]
    (tmp_path / "trials.txt").write_text("".join(pairs))
    return tmp_path / "trials.txt"


def run(*words: object) -> int:
    return call("score", *words)


def test_verification(checkpoint, manifest, trials, tmp_path, refused, capsys, monkeypatch):
    command = ["verify", checkpoint, manifest, trials, "--cache", tmp_path / "cache"]
    assert run(*command, "--out", tmp_path / "scores") == 0
    printed = capsys.readouterr().out
    assert re.search(r"cosine: 15 trials \(3 target, 12 non-target\): EER \d+\.\d{3} %, minDCF", printed)
    rows = [line.split() for line in (tmp_path / "scores").read_text().splitlines()]
    assert rows[0][:2] == ["id10001/video/00001", "id10001/video/00002"]
    assert all(-1 <= float(score) <= 1 for _, _, score, _ in rows)
    assert [label for *_, label in rows].count("1") == 3

    def never(*args):
        raise AssertionError("the model is not needed: embeddings are kept")

    monkeypatch.setattr(Classifier, "open", never)
    assert run(*command) == 0
    assert capsys.readouterr().out == printed
    assert run(*command, "--cohort", manifest) == 0
    assert "s-norm (3 in the cohort, top 300): 15 trials" in capsys.readouterr().out
    assert run(*command, "--cohort", manifest, "--subtract-mean") == 0
    assert "cosine: 15 trials" in capsys.readouterr().out
    assert "--subtract-mean" in refused(run(*command, "--subtract-mean"))
    with pytest.raises(AssertionError):
        run(*command, "--layer", "encoder")  # other embeddings
    monkeypatch.undo()
    assert run(*command, "--layer", "header") == 1  # the head has no hidden layer
    assert "layer 'header'" in capsys.readouterr().err


def test_a_folder_to_share_is_a_checkpoint(checkpoint, manifest, trials, tmp_path, capsys):
    assert run("verify", checkpoint, manifest, trials, "--cache", tmp_path / "cache") == 0
    expected = capsys.readouterr().out
    assert call("model", "convert", checkpoint, tmp_path / "shared") == 0
    capsys.readouterr()
    assert run("verify", tmp_path / "shared", manifest, trials) == 0
    assert capsys.readouterr().out == expected


def test_trials_that_are_not_there(checkpoint, manifest, trials, tmp_path, refused, capsys):
    command = ["verify", checkpoint, manifest, trials, "--cache", tmp_path / "cache"]
    with trials.open("a") as file:
        file.write("1 id10001/video/00001.wav id10009/video/00001.wav\n")
    assert "1 of its 7 utterances are not in" in refused(run(*command))
    assert run(*command, "--allow-missing") == 0
    assert "1 of 16 trials are left out" in capsys.readouterr().out
    trials.write_text("1 a b\n0 a c\n")
    assert f"{trials}: no trial is left" in refused(run(*command, "--allow-missing"))


def test_embeddings_of_a_teacher_and_its_student_alone(checkpoint, manifest, refused):
    words = (checkpoint, checkpoint, manifest, manifest.with_suffix(".spk"))
    error = refused(call("analyse", "embeddings", *words))
    assert f"{checkpoint} holds AVClassifier, {checkpoint} AVClassifier; name the teacher first" in error


def test_drawing_trials(checkpoint, manifest, tmp_path, refused, capsys):
    out = tmp_path / "trials.txt"
    assert run("trials", manifest, out, "--number", 4) == 0
    assert "2 target and 2 non-target trials, 3 speakers" in capsys.readouterr().out
    first = out.read_text()
    assert run("trials", manifest, out, "--number", 4) == 0
    assert out.read_text() == first
    assert run("trials", manifest, out, "--number", 4, "--seed", 1) == 0
    assert out.read_text() != first
    assert run("trials", manifest, out) == 0
    rows = [line.split() for line in out.read_text().splitlines()]
    assert len({tuple(row[1:]) for row in rows}) == len(rows) == 6
    assert all((a[:7] == b[:7]) == (label == "1") for label, a, b in rows)
    assert run("verify", checkpoint, manifest, out, "--cache", tmp_path / "cache") == 0
    assert "6 trials (3 target, 3 non-target)" in capsys.readouterr().out
    alone = tmp_path / "alone.tsv"
    alone.write_text("\n".join(manifest.read_text().splitlines()[:3]) + "\n")
    alone.with_suffix(".spk").write_text("one\none\n")
    assert "1 speakers in 2 clips give 1 pairs of one and 0 of two" in refused(run("trials", alone, out))


def test_classification(checkpoint, manifest, tmp_path, refused, capsys):
    labels, out = manifest.with_suffix(".emo"), tmp_path / "found.tsv"
    assert run("classify", checkpoint, manifest, labels, "--out", out) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("5 clips: accuracy")  # the class of one is not among the model's
    assert [line.split()[0] for line in printed.splitlines()[1:]] == ["truth", *CLASSES]
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert [row[1] for row in rows] == ["calm", "glad", "sour", "?", "glad", "sour"]
    (tmp_path / "noise.tsv").write_text(f"{manifest.parent / 'id10001-1.wav'}\n")
    assert (
        run("classify", checkpoint, manifest, labels, "--noise", tmp_path / "noise.tsv", "--snr", "-20") == 0
    )
    assert "none of its labels" in refused(
        run("classify", checkpoint, manifest, manifest.with_suffix(".spk"))
    )


def test_files_that_cannot_be_used(checkpoint, manifest, tmp_path, refused):
    labels = manifest.with_suffix(".emo")
    assert "there is no such file" in refused(run("classify", tmp_path / "none.pt", manifest, labels))
    broken = tmp_path / "test.tsv"
    lines = manifest.read_text().splitlines()
    broken.write_text("\n".join([*lines[:3], lines[3].replace("id10002-1", "gone"), *lines[4:]]) + "\n")
    assert "cannot be read" in refused(run("classify", checkpoint, broken, labels))


def test_lists_without_an_answer(checkpoint, manifest, trials, tmp_path, refused, capsys):
    command = ["verify", checkpoint, manifest, trials, "--cache", tmp_path / "cache"]
    alone = tmp_path / "alone.tsv"
    alone.write_text("\n".join(manifest.read_text().splitlines()[:3]) + "\n")
    alone.with_suffix(".spk").write_text("one\none\n")
    assert f"--cohort {alone}: has 1 speaker;" in refused(run(*command, "--cohort", alone))
    with pytest.raises(SystemExit):
        run(*command, "--cohort", manifest, "--top", 1)
    assert "--top: must be at least 2, not 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("trials", manifest, tmp_path / "drawn.txt", "--number", 1)
    assert "--number: must be at least 2, not 1" in capsys.readouterr().err
    trials.write_text("1 id10001/video/00001 id10001/video/00002\n")
    assert "trials.txt: 1 of 1 trials are of one speaker" in refused(run(*command))


def test_two_clips_of_one_name_are_refused(checkpoint, manifest, trials, tmp_path, refused):
    twice = tmp_path / "twice.tsv"
    rows = manifest.read_text().splitlines()
    twice.write_text("\n".join([*rows, rows[1]]) + "\n")
    twice.with_suffix(".spk").write_text("id10001\n" * 7)
    for command in (("trials", twice, tmp_path / "out.txt"), ("verify", checkpoint, twice, trials)):
        error = refused(run(*command))
        assert "on line 2" in error
        assert "line 8" in error


def test_several_noise_levels_are_scored_at_once(checkpoint, manifest, tmp_path, refused, capsys):
    rng, noise = np.random.default_rng(1), tmp_path / "noise.wav"
    soundfile.write(noise, rng.normal(0, 3000, 16000).astype(np.int16), 16000)
    (tmp_path / "noise.tsv").write_text(f"{noise}\n")
    command = [
        "classify",
        checkpoint,
        manifest,
        manifest.with_suffix(".emo"),
        "--noise",
        tmp_path / "noise.tsv",
    ]
    assert run(*command, "--snr", "clean", "0", "-5") == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+): 5 clips: accuracy", printed, re.MULTILINE) == ["clean", "0dB", "-5dB"]
    assert run(*command, "--snr", "-5") == 0
    assert capsys.readouterr().out == printed.partition("-5dB: ")[2]
    assert "--snr" in refused(run(*command, "--snr", "0", "-5", "--out", tmp_path / "found.tsv"))
    assert "--snr: needs the noise" in refused(run(*command[:4], "--snr", "-5"))
