"""``av-ssl features``: arrays of layers, continuing after a kill, other settings, bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import av_ssl
from av_ssl.analysis.features import FeatureFolder
from av_ssl.errors import DataError
from av_ssl.inference import FeatureSpec
from av_ssl.manifest import read_manifest
from tests.methods import raven_layout

from .conftest import call


@pytest.fixture
def features(data, tmp_path):
    """Runs the command in this process on the list of 3 validation clips of 10, 11 and 12 frames."""

    def run(model: Path, *words: str | Path, out: str = "features") -> int:
        options = ["--out", str(tmp_path / out), "--subset", "valid", "--workers", "1", *map(str, words)]
        return call("features", model, data, *options)

    return run


def raven_file(path: Path, modality: str) -> Path:
    torch.save(raven_layout.published(modality), path)
    return path


# -- what comes out ------------------------------------------------------------------------------------------


def test_one_array_of_all_layers(features, checkpoint, data, tmp_path, capsys):
    assert features(checkpoint) == 0
    folder = tmp_path / "features"
    frames = np.load(folder / "valid.npy", mmap_mode="r", allow_pickle=False)
    assert (frames.shape, frames.dtype) == ((33, 4, 16), np.float32)
    assert (folder / "valid.index.tsv").read_text() == "valid_0\t0\t10\nvalid_1\t10\t11\nvalid_2\t21\t12\n"
    np.testing.assert_allclose(np.load(folder / "valid.times.npy")[[0, 9, 10, 32]], [0.02, 0.38, 0.02, 0.46])
    for layer in (1, 3):
        expected = FeatureSpec(checkpoint, layer).open().of(read_manifest(data / "valid.tsv")[1])
        np.testing.assert_allclose(frames[10:21, layer], expected, atol=1e-6)
    assert (
        "33 frames at 25 Hz; 16 channels of layers 0 1 2 3; from audio and video" in capsys.readouterr().out
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["settings.json", "valid.index.tsv", "valid.npy", "valid.times.npy", "valid.tsv"]
    )


def test_one_file_a_clip(features, checkpoint, tmp_path):
    assert features(checkpoint, "--layers", "3", "1") == 0
    assert features(checkpoint, "--layers", "1", "3", "--format", "npz", "--half", out="npz") == 0
    whole, single = FeatureFolder(tmp_path / "features"), FeatureFolder(tmp_path / "npz")
    assert whole.layers == single.layers == [1, 3]
    with np.load(tmp_path / "npz" / "valid" / "valid_2.npz", allow_pickle=False) as file:
        assert file["features"].dtype == np.float16
        assert file["layers"].tolist() == [1, 3]
        np.testing.assert_allclose(file["times"], whole.times("valid_2"))
    np.testing.assert_allclose(single.features("valid_2"), whole.features("valid_2"), atol=2e-3)


def test_one_stream_alone_and_random_weights_are_others(features, checkpoint, tmp_path):
    found = {}
    for out, words in {
        "av": "", "video": "--modalities video", "random": "--untrained 1", "again": "--untrained 1",
        "other": "--untrained 2",
    }.items():  # fmt: skip
        assert features(checkpoint, *words.split(), out=out) == 0
        found[out] = np.load(tmp_path / out / "valid.npy")
    assert not np.allclose(found["av"], found["video"])
    assert not np.allclose(found["av"], found["random"])
    assert not np.allclose(found["random"], found["other"])
    np.testing.assert_array_equal(found["random"], found["again"])


def test_so_many_clips_spread_over_the_list(data, checkpoint, tmp_path):
    words = ["--subset", "train", "valid", "--clips", "3", "--layers", "0", "--shards", "2", "--workers", "1"]
    assert call("features", checkpoint, data, "--out", tmp_path / "f", *words) == 0
    folder = FeatureFolder(tmp_path / "f")
    assert list(folder.clips) == ["train_0", "train_3", "train_6", "valid_0", "valid_1", "valid_2"]
    assert list(FeatureFolder(tmp_path / "f", ["valid"]).clips) == ["valid_0", "valid_1", "valid_2"]
    with pytest.raises(DataError, match=r"f: .* test, .* train, valid"):
        FeatureFolder(tmp_path / "f", ["test"])


def test_ravens_encoders(features, tmp_path, capsys):
    assert features(raven_file(tmp_path / "video.pt", "video")) == 1  # 88 pixels, of frames that have 24
    assert "24x24 pixels are smaller than the crop of 88" in capsys.readouterr().err
    assert features(raven_file(tmp_path / "audio.pt", "audio"), out="audio") == 0
    frames = FeatureFolder(tmp_path / "audio").features("valid_1")
    assert frames.shape == (11, 3, 16)
    assert np.isfinite(frames).all()


def test_one_of_two_students_that_ravens_pretraining_left(features, tmp_path, refused):
    task = {"audio_input": "waveform", "image_crop_size": 22, "modalities": "av"}
    cfg = {"model": {"_name": "raven", **raven_layout.TINY, **raven_layout.PREDICTORS}, "task": task}
    torch.save({"cfg": cfg, "model": raven_layout.pretrained().state_dict()}, tmp_path / "raven.pt")
    assert "name --modalities: RavenModel of" in refused(features(tmp_path / "raven.pt"))
    for stream in ("audio", "video"):
        assert features(tmp_path / "raven.pt", "--modalities", stream, out=stream) == 0
        assert FeatureFolder(tmp_path / stream).features("valid_1").shape == (11, 3, 16)


def test_a_speech_model_at_50_hz(features, data, tmp_path):
    pytest.importorskip("transformers")
    from tests.targets.tiny_teachers import save_teacher

    model = save_teacher(tmp_path / "hubert", "hubert")
    assert features(model) == 0
    folder = FeatureFolder(tmp_path / "features")
    assert (folder.layers, folder.rate) == ([1, 2, 3], 50)
    assert folder.features("valid_0").shape == (19, 3, 16)
    assert features(model, "--layers", "3", out="last") == 0
    last = FeatureFolder(tmp_path / "last").features("valid_0")
    np.testing.assert_allclose(last[:, 0], folder.features("valid_0")[:, 2], atol=1e-5)
    found = av_ssl.features(model, audio=data / "valid_0.wav", layers=[3])
    np.testing.assert_allclose(found, last, atol=1e-5)


# -- bad input -----------------------------------------------------------------------------------------------


def test_a_speech_model_has_neither_video_nor_random_weights(features, tmp_path, refused):
    assert "--modalities av: " in refused(features(tmp_path, "--modalities", "av"))
    assert "--untrained: " in refused(features(tmp_path, "--untrained", "0"))


def test_a_clip_that_cannot_be_read_has_no_frames(features, checkpoint, data, tmp_path, capsys):
    (data / "valid_1.wav").write_bytes(b"noise")
    assert features(checkpoint, "--format", "npz") == 0
    folder = FeatureFolder(tmp_path / "features")
    assert list(folder.clips) == ["valid_0", "valid_2"]
    assert "1 clips cannot be read and have no frames: valid_1" in capsys.readouterr().out
    assert (tmp_path / "features" / "bad_clips.valid.tsv").read_text().startswith("valid_1\t")
    assert not (tmp_path / "features" / "valid" / "valid_1.npz").exists()


def test_ids_that_lead_out_of_the_folder(features, checkpoint, data, tmp_path, refused):
    text = (data / "valid.tsv").read_text()
    (data / "valid.tsv").write_text(text.replace("valid_1\t", "../valid_1\t"))
    assert "clip ../valid_1: its id cannot be a file name" in refused(features(checkpoint, "--format", "npz"))


def test_damaged_folders(features, checkpoint, tmp_path):
    assert features(checkpoint) == 0
    for number, (name, content, message) in enumerate(
        (
            ("settings.json", None, r"settings\.json: cannot be read"),
            ("settings.json", "{", r"settings\.json: is damaged"),
            ("settings.json", "{}", r"settings\.json: lacks layers, rate, channels, format"),
            ("valid.index.tsv", "valid_0\t0\n", r"valid\.index\.tsv, line 1: "),
            ("valid.index.tsv", None, "holds no features of any clip"),
            ("valid.npy", "", r"valid\.npy: cannot be read"),
            ("valid.index.tsv", "valid_0\t0\t5\n", r"valid\.npy: .*\(33, 4, 16\), not \(5, 4, 16\)"),
        )
    ):
        folder = Path(shutil.copytree(tmp_path / "features", tmp_path / str(number)))
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(DataError, match=message):
            FeatureFolder(folder).features("valid_0")
