"""Features of clips from an encoder."""

import dataclasses
import os

import numpy as np
import pytest
import soundfile
import torch

from av_ssl import inference
from av_ssl.checkpoints.loading import load
from av_ssl.data.reading import audio_features, read_crops, read_wave
from av_ssl.errors import DataError, MediaError
from av_ssl.inference import FeatureSpec
from av_ssl.manifest import read_manifest
from av_ssl.targets import cluster_labels as label_shards
from av_ssl.targets.cluster_labels import LabelJob, label_shard
from av_ssl.targets.feature_shards import FeatureShard
from av_ssl.targets.mfcc import MfccSource


@pytest.fixture
def clips(data):
    return read_manifest(data / "train.tsv")


def test_the_layer_is_that_of_the_model_on_the_whole_clean_clip(clips, checkpoint):
    features = FeatureSpec(checkpoint, 2).open()
    found = features.of(clips[3])
    assert found.shape == (13, features.dim) == (13, 16)
    images = np.array(read_crops(clips[3].video))[:, 1:23, 1:23]
    heard = audio_features(read_wave(clips[3].audio), 13, normalize=True)
    source = {"audio": torch.tensor(heard).T[None], "video": torch.tensor(images)[None, None]}
    model = load(checkpoint)
    with torch.no_grad():
        expected, _ = model.extract_features(source, None, output_layer=2)
        last, _ = model.extract_features(source, None)
    np.testing.assert_allclose(found, expected[0], atol=1e-6)
    assert not np.allclose(found, last[0], atol=0.1)  # the stream is not normalised at its end


def test_a_checkpoint_counts_by_its_content(checkpoint, tmp_path):
    settings = FeatureSpec(checkpoint, 1).settings()
    copy = tmp_path / "copy.pt"
    copy.write_bytes(checkpoint.read_bytes())
    assert FeatureSpec(copy, 1).settings() == settings
    copy.write_bytes(checkpoint.read_bytes() + b"0")
    assert FeatureSpec(copy, 1).settings() != settings
    assert FeatureSpec(checkpoint, 2).settings() != settings


def test_the_last_model_is_not_read_again(checkpoint):
    model = inference.open_model(checkpoint)
    assert inference.open_model(checkpoint, "cpu", None) is model
    assert inference.open_model(checkpoint, dtype=torch.float32) is model
    assert inference.open_model(checkpoint, untrained=1) is not model


@pytest.mark.parametrize("layer", [-1, 0, 4])
def test_layers_that_do_not_exist(layer, checkpoint):
    with pytest.raises(DataError, match=f"--layer {layer}: this model has layers 1 to 3"):
        FeatureSpec(checkpoint, layer).open()


def test_a_checkpoint_that_does_not_say_how_it_was_trained(checkpoint, tmp_path):
    state = torch.load(checkpoint)
    del state["cfg"]["task"]["normalize"]
    torch.save(state, tmp_path / "old.pt")
    with pytest.raises(DataError, match=r"old\.pt: its task section has no normalize$"):
        FeatureSpec(tmp_path / "old.pt", 1).open()


def test_gpus_take_turns_in_features_and_labels(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    asked = []

    def note(*words):
        asked.append(words[-1])
        raise NotImplementedError

    monkeypatch.setattr(inference, "open_model", note)
    monkeypatch.setattr(label_shards, "read_centroids", lambda path: None)
    monkeypatch.setattr(label_shards, "Codebook", note)
    monkeypatch.setattr(FeatureShard, "read", lambda shard: (None, []))
    for rank in range(3):
        with pytest.raises(NotImplementedError):
            FeatureSpec(tmp_path, 1, "cuda").open(rank)
        with pytest.raises(NotImplementedError):
            label_shard(LabelJob(FeatureShard(tmp_path, "train", rank, 3), tmp_path, tmp_path, "cuda"))
    assert asked == ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:0", "cuda:0"]


def test_clips_that_cannot_be_used(clips, checkpoint):
    features = FeatureSpec(checkpoint, 1).open()
    np.save(clips[0].video, np.zeros((9, 20, 20), np.uint8))
    with pytest.raises(MediaError, match=r"train_0\.npy: frames of 20x20 pixels are smaller than the crop"):
        features.of(clips[0])
    os.truncate(clips[1].audio, 10)
    with pytest.raises(MediaError, match=r"train_1\.wav: "):
        features.of(clips[1])
    short = dataclasses.replace(clips[2], audio=clips[2].audio.with_name("short.wav"))
    soundfile.write(short.audio, np.zeros(399, np.int16), 16000)
    with pytest.raises(MediaError, match=r"short\.wav: has 399 samples"):
        MfccSource().open().of(short)
