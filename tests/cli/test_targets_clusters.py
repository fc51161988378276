"""``av-ssl targets clusters``: labels, continuing after a kill, other settings, bad input."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl import jobs
from av_ssl.data.labels import FrameLabels, keep_agreeing
from av_ssl.manifest import read_manifest
from av_ssl.targets import feature_shards
from av_ssl.targets.clusters import Codebook
from av_ssl.targets.mfcc import mfcc
from tests.methods.raven_layout import published

from .conftest import call

CLIPS = {"train": 9, "valid": 3}
LABELS = ("train.km", "valid.km", "dict.km.txt")


@pytest.fixture
def layer_2(checkpoint) -> list[str]:
    return ["--checkpoint", str(checkpoint), "--layer", "2"]


@pytest.fixture
def targets(data, tmp_path):
    """Runs the command in this process, with five clusters fitted to all clips."""

    def run(*words: str | Path, out: str = "labels") -> int:
        options = ["--clusters", "5", "--fit-share", "1", "--workers", "1", *map(str, words)]
        return call("targets", "clusters", data, "--out", tmp_path / out, *options)

    return run


def labels_of(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in LABELS}


def label_counts(path: Path) -> list[int]:
    return [len(line.split()) for line in path.read_text().splitlines()]


# -- what comes out ------------------------------------------------------------------------------------------


def test_mfcc_targets_are_those_that_training_reads(targets, data, tmp_path, capsys):
    assert targets() == 0
    folder = tmp_path / "labels"
    centroids = np.load(folder / "km.clusters" / "centroids.npy", allow_pickle=False)
    assert centroids.shape == (5, 39)
    for split, count in CLIPS.items():
        clips = read_manifest(data / f"{split}.tsv")
        labels = FrameLabels.load(folder / f"{split}.km", folder / "dict.km.txt", clips, 100)
        assert keep_agreeing(clips, [labels], range(count)) == list(range(count))
        lines = (folder / f"{split}.km").read_text().splitlines()
        for clip, line in zip(clips, lines, strict=True):
            wave = np.frombuffer(clip.audio.read_bytes()[44:], np.int16)
            assert [int(word) for word in line.split()] == Codebook(centroids).nearest(mfcc(wave))[0].tolist()
    assert (folder / "dict.km.txt").read_text() == "".join(f"{k} 10000\n" for k in range(5))
    report = json.loads((folder / "km.clusters" / "report.json").read_text())
    assert report["train"]["labels"] == sum(4 * (10 + k) - 2 for k in range(9))
    assert report["train"]["clips_without_labels"] == []
    assert 1 < report["train"]["perplexity"] <= 5
    assert "9 clips, 486 labels at 100 Hz" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == sorted([*LABELS, "km.clusters"])


def test_targets_of_a_model_layer(targets, layer_2, tmp_path):
    assert targets(*layer_2, "--keep-features") == 0
    folder = tmp_path / "labels"
    assert label_counts(folder / "train.km") == [10 + k for k in range(9)]
    shard = np.load(folder / "features" / "valid_1_3.npy", allow_pickle=False)
    assert (shard.shape, shard.dtype) == ((11, 16), np.float32)
    assert (folder / "features" / "valid_1_3.len").read_text() == "11\n"


def test_targets_of_an_encoder_of_waveforms(targets, tmp_path, refused):
    torch.save(published("audio"), tmp_path / "raven.pt")
    words = ["--checkpoint", tmp_path / "raven.pt", "--layer", "2"]
    assert targets(*words) == 0
    assert label_counts(tmp_path / "labels" / "train.km") == [10 + k for k in range(9)]
    assert "--modalities video: " in refused(targets(*words, "--modalities", "video", out="seen"))


def test_targets_of_one_stream(targets, layer_2, refused):
    assert targets(*layer_2, "--modalities", "video") == 0
    assert "modalities video (now none)" in refused(targets(*layer_2))
    assert "--modalities is for a model" in refused(targets("--modalities", "video", out="mfcc"))


def test_labels_do_not_depend_on_shards_or_processes(targets, layer_2, tmp_path, monkeypatch):
    def other_process(function, jobs, workers):
        for job in jobs:
            yield job, pickle.loads(pickle.dumps((function, job)))[0](job)

    monkeypatch.setattr(jobs, "run_isolated", other_process)
    for model, words in {"mfcc": [], "layer": layer_2}.items():
        results = []
        for shards, workers in ((1, 1), (2, 1), (5, 2)):
            assert targets(*words, "--shards", shards, "--workers", workers, out=f"{model}{shards}") == 0
            results.append(labels_of(tmp_path / f"{model}{shards}"))
        assert results[0] == results[1] == results[2]


def test_another_split_is_labelled_with_the_same_centroids(targets, data, tmp_path):
    (data / "test.tsv").write_text((data / "valid.tsv").read_text())
    assert targets() == 0
    before = labels_of(tmp_path / "labels")
    assert targets("--splits", "train", "valid", "test") == 0
    assert labels_of(tmp_path / "labels") == before
    assert (tmp_path / "labels" / "test.km").read_text() == before["valid.km"]


def test_kept_features_serve_another_number_of_clusters(targets, tmp_path, monkeypatch):
    assert targets("--half", "--keep-features") == 0
    assert np.load(tmp_path / "labels" / "features" / "train_0_9.npy").dtype == np.float16
    monkeypatch.setattr(feature_shards, "dump_shard", None)
    assert targets("--half", "--clusters", "3", "--label-name", "km3") == 0
    assert set((tmp_path / "labels" / "train.km3").read_text().split()) == {"0", "1", "2"}
    assert not (tmp_path / "labels" / "features").exists()


def test_files_of_a_killed_process_are_removed(targets, tmp_path):
    assert targets("--keep-features") == 0
    folder = tmp_path / "labels" / "features"
    abandoned = folder / f".partial-{os.uname().nodename}-99999999-0123abcd"
    abandoned.write_bytes(b"half a shard")
    assert targets() == 0
    assert not abandoned.exists()


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[], ["--keep-features"]])
def test_an_unreadable_clip_has_no_labels_and_is_reported(keep, targets, data, tmp_path, capsys):
    wave = (data / "train_3.wav").read_bytes()
    (data / "train_3.wav").write_bytes(b"noise")
    assert targets(*keep) == 0
    folder = tmp_path / "labels"
    counts = [4 * (10 + k) - 2 for k in range(9)]
    assert label_counts(folder / "train.km") == [0 if k == 3 else n for k, n in enumerate(counts)]
    assert "NO labels, so training leaves them out: train_3;" in capsys.readouterr().out
    assert (folder / "bad_clips.train.tsv").read_text().startswith("train_3\t")
    clips = read_manifest(data / "train.tsv")
    labels = FrameLabels.load(folder / "train.km", folder / "dict.km.txt", clips, 100)
    assert 3 not in keep_agreeing(clips, [labels], range(9))

    # Repaired, as the message says; the centroids stay.
    (data / "train_3.wav").write_bytes(wave)
    (folder / "bad_clips.train.tsv").unlink()
    (folder / "train.km").unlink()
    assert targets() == 0
    assert label_counts(folder / "train.km") == counts


def test_agreement_of_finished_labels(targets, data, refused, capsys):
    assert targets() == 0
    for split in ("train", "valid"):
        (data / f"{split}_0.json").write_text('{"phones": [["a", 0, 0.1], ["b", 0.1, 9]], "speaker": "s1"}')
    assert targets("--alignments", data) == 0
    printed = capsys.readouterr().out
    assert printed.count("| phone | 2 |") == printed.count("| speaker | 1 | 1.000 |") == 2
    assert "none: there is no such" in refused(targets("--alignments", data / "none"))


def test_a_checkpoint_needs_a_layer_and_the_other_way_round(targets, checkpoint, tmp_path, refused):
    assert targets("--checkpoint", checkpoint) == 1
    assert "--checkpoint and --layer belong together" in refused(targets("--layer", "2"))
    assert "none.pt: there is no such file" in refused(
        targets("--checkpoint", tmp_path / "none.pt", "--layer", "2")
    )
