"""``av-ssl targets teacher`` on a small corpus and small teachers, and the targets that training reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl.data.collate import Extent, Sample
from av_ssl.data.reading import frame_waveform, read_wave
from av_ssl.data.teacher_batch import collate_teachers
from av_ssl.errors import DataError
from av_ssl.manifest import read_manifest
from av_ssl.targets import teacher_dump
from av_ssl.targets.speech_teacher import TeacherSpec
from av_ssl.targets.teacher_targets import StoredFeatures, TeacherFolder, TeacherTargets
from tests.data_folder import write_data
from tests.targets.tiny_teachers import save_teacher

from .conftest import call

pytest.importorskip("transformers")

HOURS_OF_WORK = teacher_dump.hours_of_work
OPTIONS = [
    "--precision",
    "float32",
    "--layers",
    "top:2",
    "--clusters",
    "12",
    "--shards",
    "3",
    "--workers",
    "1",
]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Does not try the teacher in another process, which has to import torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_dump, "hours_of_work", lambda *_: 3.0)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("hub") / "hubert", "hubert")


@pytest.fixture(scope="module")
def made(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "teacher"
    assert dump(data, model, out) == 0
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "teacher"))


def dump(data: Path, model: Path, out: Path, *options: str) -> int:
    return call("targets", "teacher", data, "--out", out, "--model", model, *OPTIONS, *options)


def test_stored_targets_are_those_of_a_teacher_that_runs_in_training(data: Path, made: Path):
    folder = TeacherFolder.read(made)
    clips = read_manifest(data / "valid.tsv")
    stored = StoredFeatures(folder, "valid", clips)
    waves = [frame_waveform(read_wave(clip.audio), clip.frames) for clip in clips]
    lengths = [clip.frames for clip in clips]
    samples = [
        Sample(k, clip.id, None, None, None, (), waveform=wave, teachers=[stored.read(k)])
        for k, (clip, wave) in enumerate(zip(clips, waves, strict=True))
    ]
    batch = collate_teachers(samples, [stored], Extent([0] * 3, lengths, max(lengths)))
    from_disk = TeacherTargets([folder])({}, batch)[0]

    online = TeacherTargets([folder], source="online", dtype=torch.float32)
    samples = [Sample(k, "", None, None, None, (), teachers=[None]) for k in range(3)]
    heard = collate_teachers(samples, online.inputs("valid", clips), Extent([0] * 3, lengths, max(lengths)))
    waveform = np.zeros((3, 640 * max(lengths)), np.int16)
    for row, wave in zip(waveform, waves, strict=True):
        row[: wave.size] = wave.reshape(-1)
    computed = online({"waveform": torch.from_numpy(waveform)}, heard)[0]

    assert torch.equal(batch["index"][0], heard["index"][0])
    np.testing.assert_allclose(from_disk.vectors, computed.vectors, atol=2e-3)
    np.testing.assert_allclose(from_disk.posteriors, computed.posteriors, atol=0.02)
    assert len(from_disk.vectors) == 2 * sum(length - 1 for length in lengths)


def test_a_folder_without_positions(data: Path, model: Path, folder: Path, tmp_path: Path, refused):
    out = tmp_path / "out"
    assert dump(data, model, out, "--remove-position") == 0
    clips = read_manifest(data / "train.tsv")
    stored = StoredFeatures(TeacherFolder.read(out), "train", clips)
    heard = TeacherFolder.read(out).spec.open()
    for number, clip in enumerate(clips):
        np.testing.assert_allclose(stored.read(number), heard.of(clip), atol=2e-3)
    usual = np.load(out / "positions.npy")
    expected = [TeacherFolder.read(folder).spec.open().of(clip)[:9] for clip in clips]
    np.testing.assert_allclose(usual[:9], np.mean(expected, axis=0), atol=1e-5)
    (out / "train_2_3.len").unlink()
    assert dump(data, model, out, "--remove-position") == 0  # continues with the same means
    np.testing.assert_array_equal(np.load(out / "positions.npy"), usual)
    assert "teacher.json: the files here were made with teacher" in refused(dump(data, model, out))
    assert TeacherFolder.read(out).shape()["targets"] != TeacherFolder.read(folder).shape()["targets"]


def test_the_folder_describes_itself(made: Path, model: Path):
    folder = TeacherFolder.read(made)
    assert (folder.dim, folder.per_frame, folder.missing, folder.clusters) == (16, 2, 1, 12)
    assert (folder.spec.model, folder.spec.layers) == (str(model), "2-3")
    frames = np.concatenate([np.load(path) for path in sorted(made.glob("train_*.npy"))]).astype(np.float32)
    distances = ((frames[:, None] - folder.centroids()) ** 2).sum(-1).min(1)
    assert folder.inertia == pytest.approx(distances.mean(), rel=1e-3)
    assert (made / "valid.ids").read_text().split() == ["valid_0", "valid_1", "valid_2"]


def test_checksums_find_damage(folder: Path, data: Path, model: Path, refused, capsys):
    assert dump(data, model, folder, "--verify", "--remove-position") == 0  # whatever the folder is made of
    assert "6 shards agree" in capsys.readouterr().out
    damaged = folder / "train_1_3.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    assert "damaged are train_1_3.npy; delete their .len files" in refused(
        dump(data, model, folder, "--verify")
    )


def test_goes_on_where_it_was(folder: Path, made: Path, data: Path, model: Path, capsys):
    (folder / "train_2_3.len").unlink()
    (folder / "train_2_3.npy").unlink()
    kept = (folder / "train_0_3.npy").stat().st_mtime_ns
    assert dump(data, model, folder, "--layers", "2-3") == 0  # top:2 of three
    assert "3 clips, 0.00 hours of audio" in capsys.readouterr().out
    assert (folder / "train_0_3.npy").stat().st_mtime_ns == kept
    for name in ("train_2_3.npy", "centroids.npy"):
        assert (folder / name).read_bytes() == (made / name).read_bytes()


def test_other_settings_are_refused(folder: Path, data: Path, model: Path, tmp_path: Path, refused):
    assert "teacher.json: the files here were made with teacher" in refused(
        dump(data, model, folder, "--norm", "none")
    )
    assert "there are 12 clusters (seed 0), not 5" in refused(dump(data, model, folder, "--clusters", "5"))
    other = save_teacher(tmp_path / "other", "hubert", seed=1)
    for name in ("config.json", "preprocessor_config.json"):
        assert (other / name).read_bytes() == (model / name).read_bytes()
    shutil.move(model, tmp_path / "kept")
    try:
        shutil.copytree(other, model)
        online = TeacherTargets([TeacherFolder.read(folder)], source="online")
        with pytest.raises(DataError, match=r"its clusters are of another .*the weights differ"):
            online.opened(0, torch.device("cpu"))
    finally:
        shutil.rmtree(model)
        shutil.move(tmp_path / "kept", model)


def test_only_clusters(data: Path, model: Path, tmp_path: Path, refused):
    out = tmp_path / "teacher"
    assert dump(data, model, out, "--no-dump", "--fit-targets", "90") == 0
    assert {path.name for path in out.iterdir()} == {"teacher.json", "clusters.json", "centroids.npy"}
    fitted_to = json.loads((out / "clusters.json").read_text())["fitted_to_targets"]
    assert 60 <= fitted_to <= 130
    assert "holds no finished shards" in refused(dump(data, model, out, "--no-dump", "--verify"))
    assert dump(data, model, out, "--no-dump", "--fit-targets", "90") == 0  # nothing left to do


def test_estimates_disk_space_and_time(data: Path, model: Path, tmp_path: Path, refused, capsys, monkeypatch):
    out = tmp_path / "teacher"
    assert dump(data, model, out, "--estimate") == 0
    # 9 clips of 10 to 18 frames, 3 of 10 to 12: 2 T - 1 targets of 16 channels in two bytes.
    stored = (2 * (126 + 33) - 12) * 32
    text = capsys.readouterr().out
    assert f"12 clips, 0.00 hours of audio: {stored / 1e9:.3f} GB in" in text
    assert "are free, about 3.0 h" in text
    assert dump(data, model, out, "--estimate", "--no-dump") == 0
    assert not out.exists()
    full = shutil.disk_usage(tmp_path)._replace(free=stored - 1)
    monkeypatch.setattr(teacher_dump.shutil, "disk_usage", lambda path: full)
    assert "--no-dump" in refused(dump(data, model, out))


@pytest.mark.slow
def test_the_time_is_measured_in_another_process(data: Path, model: Path):
    clips = read_manifest(data / "train.tsv")
    assert 0 < HOURS_OF_WORK(TeacherSpec(str(model), "1"), clips, 1) < 0.1


def test_a_clip_without_audio(data: Path, model: Path, tmp_path: Path, refused):
    lines = (data / "train.tsv").read_text().splitlines()
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.tsv").write_text("\n".join([*lines[:2], lines[2].replace("train_1.wav", "")]) + "\n")
    assert "train.tsv, line 3: clip train_1 has no audio" in refused(
        dump(folder, model, tmp_path / "teacher", "--splits", "train")
    )


def test_a_folder_keeps_the_precision_that_it_was_begun_with(folder: Path, data: Path, model: Path):
    assert dump(data, model, folder, "--precision", "auto") == 0
    assert json.loads((folder / "teacher.json").read_text())["precision"] == "float32"
    assert dump(data, model, folder, "--precision", "bfloat16") == 1
