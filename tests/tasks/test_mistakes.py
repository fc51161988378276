"""Mistakes in the names of subsets and metrics, and in the size of batches, end before work starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data.data_utils import raise_if_valid_subsets_unintentionally_ignored
from fairseq.tasks import FairseqTask
from omegaconf import OmegaConf

from av_ssl.data.dataset import BadClips
from av_ssl.errors import DataError
from av_ssl.manifest import read_manifest
from av_ssl.tasks.audio_visual import AudioVisualTask, check_budget, root_config
from av_ssl.tasks.classification import ClassificationConfig, ClassificationTask
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from av_ssl_fairseq_hook.mistakes import one_line
from tests.data_folder import write_split, write_transcripts, write_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split in ("lrs3", "valid"):
        write_split(folder, split, [10, 12])
        write_transcripts(folder, split)
    write_vocabulary(folder)
    return folder


def task_of(folder: Path, metric: str = "loss", **keys: Any) -> AudioVisualTask:
    kinds = {"eer": (ClassificationTask, ClassificationConfig), None: (RecognitionTask, RecognitionConfig)}
    kind, config = kinds["eer" if "eer" in keys else None]
    root = OmegaConf.create(
        {
            "dataset": {"train_subset": "lrs3", "disable_validation": False, "max_tokens": 100},
            "optimization": {"update_freq": [1]},
            "distributed_training": {"distributed_world_size": 1, "distributed_rank": 0},
            "checkpoint": {"save_dir": str(folder), "best_checkpoint_metric": metric},
            "common": {"cpu": False},
            "generation": {"lm_path": None},
            "task": OmegaConf.structured(config(data=str(folder), seed=1, image_crop_size=22, **keys)),
        }
    )
    return kind(root.task)


def test_training_clips_are_augmented_under_any_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And that noise without a list of it, or a list without a share, has no effect is said once."""
    task = task_of(folder, noise_prob=0.25)
    task.load_dataset("lrs3", combine=True)  # as fairseq's trainer does
    task.load_dataset("valid")
    assert task.dataset("lrs3").train
    assert not task.dataset("valid").train
    assert caplog.text.count("noise_prob=0.25 has no effect") == 1
    task_of(folder, noise_wav="/noise")
    assert caplog.text.count("noise_wav=/noise has no effect") == 1


def test_only_training_sets_the_batch(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that decodes has the same keys, and is built by the same function."""
    caplog.set_level("INFO")
    monkeypatch.setattr(FairseqTask, "build_model", lambda self, cfg, from_checkpoint: torch.nn.Linear(1, 1))
    task = task_of(folder, frames_per_update=400)
    model = OmegaConf.create({"_name": "x"})
    AudioVisualTask.build_model(task, model, from_checkpoint=True)
    assert root_config(task.cfg).optimization.update_freq == [1]
    assert "effective batch" not in caplog.text
    AudioVisualTask.build_model(task, model)
    assert root_config(task.cfg).optimization.update_freq == [4]
    assert "has no effect" not in caplog.text
    task = task_of(folder, frames_per_update=400)
    root_config(task.cfg).optimization.update_freq = [3]
    AudioVisualTask.build_model(task, model)
    assert "optimization.update_freq=[3] has no effect" in caplog.text
    root_config(task.cfg).distributed_training.distributed_world_size = 8
    with pytest.raises(DataError, match=r"frames_per_update is 400.* lower dataset\.max_tokens to 50"):
        AudioVisualTask.build_model(task, model)


def test_bad_clips_of_a_run_without_checkpoints_are_forgotten(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FairseqTask, "build_model", lambda self, cfg, from_checkpoint: torch.nn.Linear(1, 1))
    bad_clips, model = tmp_path / "bad_clips.train.tsv", OmegaConf.create({"_name": "x"})
    for rank, checkpoints, kept in ((0, [], False), (1, [], True), (0, ["checkpoint_last.pt"], True)):
        bad_clips.write_text("a\tcannot be read\n")
        for name in checkpoints:
            (tmp_path / name).touch()
        task = task_of(folder)
        root = root_config(task.cfg)
        root.checkpoint.save_dir, root.distributed_training.distributed_rank = str(tmp_path), rank
        AudioVisualTask.build_model(task, model)
        assert bad_clips.exists() == kept


def test_subsets_that_do_not_exist(folder: Path) -> None:
    task = task_of(folder)
    with pytest.raises(DataError, match=r"vlaid\.tsv: does not exist.*lrs3, valid.*dataset\.valid_subset"):
        task.load_dataset("vlaid")
    with pytest.raises(DataError, match=r"dataset\.combine_valid_subsets=true.*dataset\.valid_subset="):
        task.load_dataset("valid", combine=True)


def test_further_validation_subsets_are_named(tmp_path: Path) -> None:
    (tmp_path / "valid2.tsv").touch()
    dataset = SimpleNamespace(
        ignore_unused_valid_subsets=False, combine_valid_subsets=False, disable_validation=False,
        valid_subset="valid",
    )  # fmt: skip
    with pytest.raises(ValueError, match="valid2") as error:
        raise_if_valid_subsets_unintentionally_ignored(
            SimpleNamespace(dataset=dataset, task=SimpleNamespace(data=str(tmp_path)))
        )
    text = str(one_line(error.value))
    assert text.startswith("dataset.valid_subset does not name valid2")
    assert "dataset.ignore_unused_valid_subsets=true" in text


def test_a_batch_holds_the_longest_clip(folder: Path) -> None:
    task = task_of(folder)
    task.load_dataset("lrs3")
    check_budget(task.dataset("lrs3"), 12)
    check_budget(task.dataset("lrs3"), None)
    with pytest.raises(DataError, match=r"dataset\.max_tokens=11 .*12 frames of clip lrs3_1"):
        check_budget(task.dataset("lrs3"), 11)
    root_config(task.cfg).dataset.max_tokens_valid = 11
    with pytest.raises(DataError, match=r"dataset\.max_tokens_valid=11 .*12 frames of clip valid_1"):
        task.load_dataset("valid")  # before training, not at the first validation


def test_what_is_decoded_is_not_augmented(folder: Path) -> None:
    """Not even the clips of training."""
    task = task_of(folder)
    task.for_training = False
    task.load_dataset("lrs3")
    assert not task.dataset("lrs3").train
    task = task_of(folder)
    root_config(task.cfg).dataset.train_subset = "train"
    task.load_dataset("lrs3")
    assert not task.dataset("lrs3").train


def test_clips_that_cannot_be_read_in_validation(folder: Path, tmp_path: Path) -> None:
    """Neither stop it, nor are others scored in their place."""
    shutil.copytree(folder, tmp_path / "data")
    write_split(tmp_path / "data", "valid", [12, 10, 11, 9])
    write_transcripts(tmp_path / "data", "valid")
    clips = read_manifest(tmp_path / "data" / "valid.tsv")
    for clip in (clips[0], clips[3]):  # the first batch, and the last one
        clip.video.write_bytes(b"damaged")
    task = task_of(tmp_path / "data")
    task.load_dataset("valid")
    task.dataset("valid").bad_clips = BadClips(None, {str(number) for number in range(1000)})
    epochs = task.get_batch_iterator(task.dataset("valid"), max_tokens=12, epoch=1)
    assert epochs.first_batch["utt_id"] == ["valid_2"]
    batches = list(epochs.next_epoch_itr(shuffle=False))
    assert [batch["utt_id"] for batch in batches] == [["valid_2"], ["valid_1"]]


@pytest.mark.parametrize(
    ("criterion", "keys", "metric", "measured"),
    [
        ("ctc", {}, "wrr", "wer"),
        ("ctc", {"valid_beam": 0}, "accuracy", "raw_wer"),
        ("label_smoothed_cross_entropy", {"valid_beam": 0}, "wer", "nll_loss"),
        ("label_smoothed_cross_entropy", {}, "wer", None),
        ("hybrid_ctc_attention", {}, "uer", None),
        ("of_another_package", {}, "anything", None),
        ("av_classification", {"eer": False}, "eer", "uar"),
        ("lupi", {"eer": True, "label": "spk"}, "wer", "eer"),
    ],
)
def test_a_metric_that_is_not_measured(
    folder: Path, criterion: str, keys: dict[str, Any], metric: str, measured: str | None, monkeypatch: Any
) -> None:
    monkeypatch.setattr("fairseq.criterions.build_criterion", lambda cfg, task: cfg)
    task = task_of(folder, metric, **keys)
    cfg = OmegaConf.create({"_name": criterion})
    if measured is None:
        assert task.build_criterion(cfg) is cfg
        return
    with pytest.raises(DataError, match=rf"best_checkpoint_metric={metric}: .*\b{measured}\b"):
        task.build_criterion(cfg)
