"""A small data folder as preprocessing leaves it, and the stock commands run on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu

from tests.data_folder import write_labels, write_noise, write_split, write_transcripts, write_vocabulary
from tests.stock import REPOSITORY, stock

TINY_ENCODER = [
    "model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2", "model.conv_pos=8", "model.conv_pos_groups=2", "model.resnet_width=4",
    "model.average_top_k_layers=2",
]  # fmt: skip
# The schedule must not depend on the number of updates: a resumed run would differ from an uninterrupted one.
SCHEDULE = [
    "lr_scheduler.phase_ratio=null", "+lr_scheduler.warmup_steps=2", "+lr_scheduler.hold_steps=9",
    "+lr_scheduler.decay_steps=9",
]  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests, transcripts, vocabulary and noise lists of 12 + 4 + 4 clips."""
    folder = tmp_path_factory.mktemp("data")
    for split, clips in (("train", 12), ("valid", 4), ("test", 4)):
        write_split(folder, split, [20 + 7 * number % 20 for number in range(clips)])
        write_transcripts(folder, split)
    write_vocabulary(folder)
    write_noise(folder)
    return folder


@pytest.fixture(scope="session")
def labels(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mfcc` at 100 Hz and `km` at 25 Hz."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(data, folder, "mfcc", 100)
    write_labels(data, folder, "km", 25)
    return folder


def hydra_train(config: str, save: Path) -> list[object]:
    """``fairseq-hydra-train`` with a configuration of the toy demo, cut down."""
    return [
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/toy/conf",
        "--config-name", config, f"common.user_dir={REPOSITORY / 'av_ssl'}", f"checkpoint.save_dir={save}",
        f"hydra.run.dir={save / 'hydra'}", "task.image_crop_size=22", "dataset.max_tokens=150",
        "common.log_interval=1",
    ]  # fmt: skip


def train(
    config: str, save: Path, *overrides: str, expect: int = 0, schedule: Sequence[str] = SCHEDULE
) -> str:
    return stock(*hydra_train(config, save), *schedule, *overrides, expect=expect)


def pretrain(data: Path, save: Path, updates: int, *overrides: str) -> str:
    return train(
        "pretrain", save, f"task.data={data}", f"optimization.max_update={updates}", *TINY_ENCODER, *overrides
    )


@pytest.fixture(scope="session")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few updates of AV2vec."""
    save = tmp_path_factory.mktemp("pretrained")
    pretrain(data, save, 4)
    return save / "checkpoint_last.pt"


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_to_cpu(str(checkpoint))["model"]


def assert_equal(first: Path, second: Path, teacher: str) -> None:
    """Both checkpoints hold the same tensors, those of a teacher among them."""
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    assert any(name.startswith(teacher) for name in one)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def generate(
    data: Path, checkpoint: Path, *options: object, task: str = "av_recognition", expect: int = 0
) -> str:
    """``fairseq-generate`` on the test split."""
    return stock(
        "fairseq-generate", data, "--user-dir", REPOSITORY / "av_ssl", "--task", task, "--path", checkpoint,
        "--gen-subset", "test", "--scoring", "wer", "--max-tokens", "400", "--cpu", *options, expect=expect,
    )  # fmt: skip


def assert_decoded(output: str) -> None:
    assert re.search(r"Generate test with beam=\d+: WER: \d", output), output[-2000:]
    assert len(re.findall(r"^D-\d+\t", output, re.MULTILINE)) == 4
    reference = re.search(r"^T-0\t(.*)$", output, re.MULTILINE)[1]
    assert re.fullmatch(r"[a-z]+( [a-z]+){2}", reference)  # words, not pieces
