"""DistillAV by the stock commands: targets from disk and online, fine-tuning, decoding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from av_ssl.cli.main import main
from av_ssl.manifest import read_manifest
from av_ssl.targets import teacher_dump
from tests.media.synthetic import run_in_process
from tests.targets.teacher_folders import write_teacher_folder
from tests.targets.tiny_teachers import save_teacher

from .conftest import NO_CTC, TINY_ENCODER, assert_decoded, finetune, generate, tensors, train

pytestmark = pytest.mark.slow

STUDENT = [
    *(option for option in TINY_ENCODER if "top_k" not in option), "+model.final_dim=8",
]  # fmt: skip


def listed(folders: list[Path]) -> str:
    return f"[{','.join(map(str, folders))}]"


@pytest.fixture(scope="module")
def teachers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders that hold random targets of all splits."""
    folder = tmp_path_factory.mktemp("teachers")
    splits = ("train", "valid", "test")
    frames = {
        split: {clip.id: clip.frames for clip in read_manifest(data / f"{split}.tsv")} for split in splits
    }
    second = write_teacher_folder(folder / "whisper", frames, missing=0, dim=4, seed=1)
    return [write_teacher_folder(folder / "wavlm", frames), second]


def pretrain(data: Path, teachers: list[Path], save: Path, *options: str) -> str:
    return train(
        "pretrain_distillav", save, f"task.data={data}", f"+model.teachers={listed(teachers)}",
        *STUDENT, *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(data: Path, teachers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = tmp_path_factory.mktemp("pretrained")
    output = pretrain(
        data, teachers, save, "optimization.max_update=2", "optimization.update_freq=[2]",
        f"+task.noise_wav={data / 'noise'}", "+task.noise_prob=0.5",
        "dataset.disable_validation=false", "dataset.validate_interval_updates=2",
    )  # fmt: skip
    assert '"task_weights3"' in output
    assert "valid_teacher1_clusters" in output
    return save / "checkpoint_last.pt"


def test_teachers_in_the_training_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(teacher_dump, "run_isolated", run_in_process)  # a worker would import torch
    model, folder = save_teacher(tmp_path / "hubert", "hubert"), tmp_path / "teacher"
    options = ("--layers", "2-3", "--clusters", "10", "--shards", "2", "--workers", "1", "--no-dump")
    assert main(["targets", "teacher", str(data), "--out", str(folder), "--model", str(model), *options]) == 0
    output = pretrain(
        data, [folder], tmp_path / "run", "optimization.max_update=2", "+model.teacher_source=online",
        "common.bf16=true",
    )  # fmt: skip
    assert '"num_updates": "2"' in output
    assert "teacher " + str(model) + ": layers 2-3, 16 channels, torch.bfloat16" in output
    names = tensors(tmp_path / "run")
    assert {name.partition(".")[0] for name in names if "teacher" in name} == {"teacher_heads"}


def test_fine_tuning_keeps_distilling_and_decoding_needs_no_teacher(
    data: Path, teachers: list[Path], pretrained: Path, tmp_path: Path
):
    kept = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in teachers]
    save = tmp_path / "run"
    output = finetune(
        data, pretrained, save, f"+model.teachers={listed(kept)}", "+model.freeze_finetune_updates=1",
        "criterion._name=distillation_finetuning", *NO_CTC,
        "+criterion.recognition={_name: ctc, zero_infinity: true}", modalities="video",
    )  # fmt: skip
    assert "as pre-trained" in output
    assert '"distillation_loss"' in output
    for folder in kept:
        shutil.rmtree(folder)
    assert_decoded(generate(data, save / "checkpoint_last.pt", "--modalities", "video"))
