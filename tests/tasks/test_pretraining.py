"""Pre-training by the stock commands: resuming, accumulation, two processes, bfloat16."""

import sys

import pytest
import torch

from av_ssl.data.dataset import DataNeeds
from av_ssl.errors import DataError
from av_ssl.tasks.pretraining import PretrainingConfig, PretrainingTask
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from tests.stock import REPOSITORY, stock

from .conftest import SCHEDULE, TINY_ENCODER, assert_equal, hydra_train, pretrain, tensors, train


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(data, tmp_path):
    """Bit for bit: weights, teacher, batch-norm statistics; in the middle of an epoch and across one, with
    accumulation, layer drop, dropout and two workers."""
    options = ["optimization.update_freq=[2]", "dataset.num_workers=2", "model.encoder_layerdrop=0.2"]
    pretrain(data, tmp_path / "whole", 5, *options)
    pretrain(data, tmp_path / "parts", 2, *options)
    output = pretrain(data, tmp_path / "parts", 5, *options)
    assert "Loaded checkpoint" in output
    assert_equal(tmp_path / "whole/checkpoint_last.pt", tmp_path / "parts/checkpoint_last.pt", "_ema.")


@pytest.mark.slow
def test_two_processes(data, tmp_path):
    output = stock(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python",
        *hydra_train("pretrain", tmp_path), f"task.data={data}", *SCHEDULE, *TINY_ENCODER,
        "optimization.max_update=3", "distributed_training.distributed_world_size=2",
        "+task.frames_per_update=600", "distributed_training.distributed_backend=gloo",
        "distributed_training.ddp_backend=legacy_ddp",
    )  # fmt: skip
    effective = "effective batch: up to 600 frames (24 s) an update = 150 a GPU x 2 GPUs x 2 micro-batches"
    assert effective in output
    assert '"num_updates": "3"' in output
    assert any(name.startswith("_ema.") for name in tensors(tmp_path / "checkpoint_last.pt"))


@pytest.mark.slow
def test_bfloat16(data, tmp_path):
    output = pretrain(data, tmp_path, 2, "common.bf16=true")
    assert '"num_updates": "2"' in output
    state = tensors(tmp_path / "checkpoint_last.pt")
    assert state["_ema.layers.0.fc1.weight"].dtype == torch.float32


@pytest.mark.slow
def test_noise_and_validation(data, tmp_path):
    output = pretrain(
        data, tmp_path, 2, f"+task.noise_wav={data / 'noise'}", "+task.noise_prob=0.5",
        "+task.noise_snr='(-5,5)'", "dataset.disable_validation=false", "dataset.validate_interval_updates=2",
    )  # fmt: skip
    assert "valid_loss_regression" in output


def test_validate_command(data, pretrained):
    output = stock(
        "fairseq-validate", data, "--user-dir", REPOSITORY / "av_ssl", "--task", "av_pretraining",
        "--path", pretrained, "--valid-subset", "valid", "--max-tokens", "200", "--cpu",
        "--image-crop-size", "22", "--log-format", "simple",
    )  # fmt: skip
    assert "loss_regression" in output


def test_missing_manifest_is_named(tmp_path):
    output = train("pretrain", tmp_path, f"task.data={tmp_path}", *TINY_ENCODER, expect=1)
    assert str(tmp_path / "valid.tsv") in output
    assert "DataError" in output


def taught_by(*digests: str) -> DataNeeds:
    return DataNeeds(teachers=lambda: None, teacher_shapes=[{"targets": digest} for digest in digests])


@pytest.mark.parametrize(
    ("kind", "config"), [(PretrainingTask, PretrainingConfig), (RecognitionTask, RecognitionConfig)]
)
def test_a_run_goes_on_with_the_same_speech_teachers_only(kind, config):
    task = kind(config(data="/none"))
    task.needs = taught_by("a", "b")
    state = task.state_dict()
    task.load_state_dict(state)
    task.needs = taught_by("b", "a")
    with pytest.raises(DataError, match=r"model\.teachers: the checkpoint was trained with others"):
        task.load_state_dict(state)
    task.needs = DataNeeds()  # a checkpoint that is read to be used
    task.load_state_dict(state)
