"""Pre-training by the stock commands: resuming, accumulation, two processes, bfloat16."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from omegaconf import OmegaConf

from av_ssl.data.dataset import DataNeeds
from av_ssl.errors import DataError
from av_ssl.tasks.pretraining import PretrainingConfig, PretrainingTask
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from tests.browser import free_port
from tests.stock import TIMEOUT, run_for

from .conftest import (
    RANDOM,
    RESUMABLE,
    SCHEDULE,
    TINY_ENCODER,
    assert_bit_identical,
    hydra_train,
    killed_after,
    pretrain,
    tensors,
    train,
    validate,
)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(data, pretrained, tmp_path):
    """Bit for bit: weights, teacher, batch-norm statistics; in the middle of an epoch and across one, with
    accumulation, layer drop, dropout and two workers."""
    killed_after(pretrained.parent, "checkpoint_1_1.pt", tmp_path)
    assert "Loaded checkpoint" in pretrain(data, tmp_path, 4, *RESUMABLE, *RANDOM)
    assert_bit_identical(pretrained.parent, tmp_path)
    assert any(name.startswith("_ema.") for name in tensors(tmp_path))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_resumed_run_on_a_gpu(data, tmp_path):
    options = [*RESUMABLE, *RANDOM, "common.cpu=false", "common.bf16=true"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    pretrain(data, whole, 4, *options)
    killed_after(whole, "checkpoint_1_1.pt", resumed)
    assert "Loaded checkpoint" in pretrain(data, resumed, 4, *options)
    assert_bit_identical(whole, resumed)


def in_two_processes(command):
    """The output of ``fairseq-hydra-train`` in the environment that ``torchrun`` gives to each."""
    command = [
        *command, "distributed_training.distributed_world_size=2",
        "distributed_training.distributed_backend=gloo", "distributed_training.ddp_backend=legacy_ddp",
    ]  # fmt: skip
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}

    def run(rank):
        return run_for(TIMEOUT, *command, environment={**shared, "RANK": rank, "LOCAL_RANK": rank})

    with ThreadPoolExecutor(2) as pool:
        (status, output), (other_status, other) = pool.map(run, "01")
    assert (status, other_status) == (0, 0), (output + other)[-4000:]
    return output


@pytest.mark.slow
def test_two_processes(data, pretrained, tmp_path):
    """Fine-tuning with validation, too: its error counts are added up over the processes."""
    output = in_two_processes([
        *hydra_train("pretrain", tmp_path), f"task.data={data}", *SCHEDULE, *TINY_ENCODER,
        "optimization.max_update=2", "+task.frames_per_update=600",
    ])  # fmt: skip
    effective = "effective batch: up to 600 frames (24 s) an update = 150 a GPU x 2 GPUs x 2 micro-batches"
    assert effective in output
    assert '"num_updates": "2"' in output
    assert any(name.startswith("_ema.") for name in tensors(tmp_path))
    output = in_two_processes([
        *hydra_train("finetune", tmp_path / "asr"), f"task.data={data}", *SCHEDULE,
        f"model.w2v_path={pretrained}", "task.modalities=audio", "optimization.max_update=1",
        "dataset.disable_validation=false",
    ])  # fmt: skip
    assert re.search(r'"valid_wer": "\d', output)


@pytest.mark.slow
def test_noise_validation_bfloat16_and_the_log(data, tmp_path):
    output = pretrain(
        data, tmp_path, 3, f"+task.noise_wav={data / 'noise'}", "+task.noise_prob=0.5", "common.bf16=true",
        "+task.noise_snr='(-5,5)'", "dataset.disable_validation=false", "dataset.validate_interval_updates=3",
    )  # fmt: skip
    assert "valid_loss_regression" in output
    assert tensors(tmp_path)["_ema.layers.0.fc1.weight"].dtype == torch.float32
    logged = [json.loads(line[line.index("{") :]) for line in output.splitlines() if '"data_wait"' in line]
    assert len(logged) >= 2
    assert all(0 <= float(entry["data_wait"]) <= 1 for entry in logged if "data_wait" in entry)


def test_validate_command(data, pretrained):
    assert "loss_regression" in validate(data, "av_pretraining", pretrained)


@pytest.mark.parametrize(("disabled", "first"), [("false", "valid"), ("true", "train")])
def test_missing_manifest_is_named(disabled, first, tmp_path):
    """Without validation, its lists may be missing or empty."""
    options = [f"task.data={tmp_path}", f"dataset.disable_validation={disabled}", *TINY_ENCODER]
    output = train("pretrain", tmp_path, *options, expect=1)
    assert f"error: {tmp_path / first}.tsv" in output


def taught_by(*digests: str) -> DataNeeds:
    return DataNeeds(teachers=lambda: None, teacher_shapes=[{"targets": digest} for digest in digests])


def test_a_task_without_transcripts_does_not_decode():
    cfg = OmegaConf.structured(PretrainingConfig(data="/none", _name="av_pretraining"))
    with pytest.raises(DataError, match=r"--task av_pretraining: .*av_recognition"):
        PretrainingTask(cfg).build_generator([torch.nn.Linear(1, 1)], cfg)


@pytest.mark.parametrize("kind", ["pre-training", "fine-tuning"])
def test_a_run_goes_on_with_the_same_speech_teachers_only(kind):
    task = (
        PretrainingTask(PretrainingConfig(data="/none"))
        if kind == "pre-training"
        else RecognitionTask(RecognitionConfig(data="/none"))
    )
    task.needs = taught_by("a", "b")
    state = task.state_dict()
    task.load_state_dict(state)
    task.needs = taught_by("b", "a")
    with pytest.raises(DataError, match=r"model\.teachers: "):
        task.load_state_dict(state)
    task.needs = DataNeeds()  # a checkpoint that is read to be used
    task.load_state_dict(state)


def test_teachers_without_a_criterion_that_distils_are_refused():
    task = RecognitionTask(RecognitionConfig(data="/none"))
    task.needs = taught_by("a")
    with pytest.raises(ValueError, match=r"model\.teachers .* criterion\._name=distillation_finetuning"):
        task.build_criterion(OmegaConf.create({"_name": "cross_entropy", "sentence_avg": False}))
