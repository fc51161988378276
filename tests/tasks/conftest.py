"""A small data folder, as preprocessing leaves it, and the stock commands that run on it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu

from av_ssl.cli.main import main
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
    """``fairseq-hydra-train`` with a configuration of the toy demo and less work."""
    return [
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/toy/conf",
        "--config-name", config, f"common.user_dir={REPOSITORY / 'av_ssl'}", f"checkpoint.save_dir={save}",
        f"hydra.run.dir={save / 'hydra'}", "task.image_crop_size=22", "dataset.max_tokens=150",
        "dataset.num_workers=0", "common.log_interval=1",
    ]  # fmt: skip


def train(
    config: str, save: Path, *overrides: str, expect: int = 0, schedule: Sequence[str] = SCHEDULE
) -> str:
    return stock(*hydra_train(config, save), *schedule, *overrides, expect=expect)


def finetune(
    data: Path, checkpoint: Path, save: Path, *overrides: str, modalities: str = "av", expect: int = 0
) -> str:
    return train(
        "finetune", save, f"task.data={data}", f"model.w2v_path={checkpoint}",
        f"task.modalities={modalities}", "optimization.max_update=2", *overrides, expect=expect,
    )  # fmt: skip


def generate(data: Path, checkpoint: Path, *options: object, expect: int = 0) -> str:
    return stock(
        "fairseq-generate", data, "--user-dir", REPOSITORY / "av_ssl", "--task", "av_recognition",
        "--path", checkpoint, "--gen-subset", "test", "--scoring", "wer", "--max-tokens", "400", "--cpu",
        *options, expect=expect,
    )  # fmt: skip


def validate(data: Path, task: str, checkpoint: Path, *options: object) -> str:
    return stock(
        "fairseq-validate", data, "--user-dir", REPOSITORY / "av_ssl", "--task", task, "--path", checkpoint,
        "--valid-subset", "valid", "--max-tokens", "200", "--cpu", "--image-crop-size", "22",
        "--log-format", "simple", *options,
    )  # fmt: skip


def assert_decoded(output: str) -> None:
    assert re.search(r"Generate test with beam=\d+: WER: \d", output), output[-2000:]
    assert len(re.findall(r"^D-\d+\t", output, re.MULTILINE)) == 4
    (reference,) = re.findall(r"^T-0\t(.*)$", output, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+( [a-z]+){2}", reference)  # words, not pieces


def run_printed(script: Path, *words: object) -> str:
    """Run each command that a script prints, without workers, which would import torch again.

    Returns the output of the last one.
    """
    printed = stock(script, *words[:2], "--print", *words[2:])
    commands = [
        shlex.split(line.removeprefix("+ ")) for line in printed.splitlines() if line.startswith("+ ")
    ]
    assert commands
    alone = {"targets": ["--workers", "1"]}
    return [stock(*command, *alone.get(command[1], [])) for command in commands][-1]


def tensors(save: Path) -> dict[str, torch.Tensor]:
    """The model's tensors in a run's last checkpoint."""
    return load_checkpoint_to_cpu(str(save / "checkpoint_last.pt"))["model"]


def killed_after(run: Path, checkpoint: str, save: Path) -> Path:
    """Make a folder of a run that was killed once it had written ``checkpoint``."""
    save.mkdir(exist_ok=True)
    shutil.copy(run / checkpoint, save / "checkpoint_last.pt")
    return save


def assert_bit_identical(first: Path, second: Path) -> list[float]:
    """Compare weights and learning rates of two runs; returns the rates, one for each group of parameters."""
    states = [torch.load(run / "checkpoint_last.pt", weights_only=False) for run in (first, second)]
    one, other = (state["model"] for state in states)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    groups = [state["last_optimizer_state"]["param_groups"] for state in states]
    rates, others = ([group["lr"] for group in each] for each in groups)
    assert rates == others
    return rates


def pretrain(data: Path, save: Path, updates: int, *overrides: str) -> str:
    return train(
        "pretrain", save, f"task.data={data}", f"optimization.max_update={updates}", *TINY_ENCODER, *overrides
    )


RANDOM = ["dataset.num_workers=2", "model.encoder_layerdrop=0.2"]
RESUMABLE = ["optimization.update_freq=[2]", "checkpoint.save_interval_updates=1"]


@pytest.fixture(scope="session")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few updates of AV2vec, over two epochs; beside it those after each update."""
    save = tmp_path_factory.mktemp("pretrained")
    pretrain(data, save, 4, *RESUMABLE, *RANDOM)
    return save / "checkpoint_last.pt"


NO_CTC = ["~criterion.zero_infinity", "~criterion.post_process"]
DECODER = [
    "+model.decoder_layers=1", "+model.decoder_embed_dim=16", "+model.decoder_ffn_embed_dim=16",
    "+model.decoder_attention_heads=2",
]  # fmt: skip
HYBRID = [
    "model._name=hybrid_ctc_attention", *DECODER, "+model.share_decoder_input_output_embed=true",
    "+model.decoder_normalize_before=true", "criterion._name=hybrid_ctc_attention", *NO_CTC,
    "+optimizer.layer_decay=0.5", "optimizer.head_lr=0.004", "+optimizer.lr_floor=0.00001",
    "optimization.max_epoch=2", "optimization.max_update=1000", "checkpoint.no_epoch_checkpoints=false",
    "checkpoint.save_interval=1", "dataset.disable_validation=false",
]  # fmt: skip


@pytest.fixture(scope="session")
def hybrid(data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A hybrid recogniser, trained for two epochs: the folder of its checkpoints, and the output."""
    save = tmp_path_factory.mktemp("hybrid")
    return save, finetune(data, pretrained, save, *HYBRID)


@pytest.fixture(scope="session")
def mean_hybrid(hybrid: tuple[Path, str]) -> Path:
    """The mean of its checkpoints, which fairseq-generate reads like any other."""
    save, _ = hybrid
    assert main(["model", "average", str(save / "mean.pt"), str(save), "--epochs", "2"]) == 0
    return save / "mean.pt"
