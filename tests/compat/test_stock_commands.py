"""fairseq's own commands run on this Python, torch and numpy: they train, resume, validate and generate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.data_folder import write_data
from tests.stock import REPOSITORY, stock
from tests.tasks.conftest import SCHEDULE, TINY_ENCODER, hydra_train

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def run_fresh(*command: str, folder: Path, **environment: str) -> str:
    """The output of a command in an interpreter of its own; it must succeed."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-4000:]
    return output


def epochs(output: str) -> list[int]:
    """The epochs that a training run reports as finished."""
    return [int(epoch) for epoch in re.findall(r'\{"epoch": (\d+), "train_loss"', output)]


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    """A stock command with a plug-in, which is this one: AV2vec on four clips, saved after each epoch."""
    data = write_data(tmp_path / "data", {"train": 4, "valid": 2})
    words = [*hydra_train("pretrain", tmp_path / "saved"), *TINY_ENCODER, *SCHEDULE, f"task.data={data}"]
    return [*map(str, words), "checkpoint.save_interval=1"]


def test_hydra_train_and_resume_with_a_plug_in(training: list[str], tmp_path: Path) -> None:
    """Training through the launcher, which needs nothing installed but fairseq."""
    launcher = (sys.executable, "-m", "av_ssl_fairseq_hook")
    two = "optimization.max_epoch=2"
    output = run_fresh(*launcher, *training, two, folder=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert epochs(output) == [1, 2]
    assert "tensorboardX" not in output
    assert epochs(stock(*training, "optimization.max_epoch=3", folder=tmp_path)) == [3]


def test_a_failing_job_shows_its_own_error(training: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise RuntimeError('the plug-in was told to fail')\n")
    words = [word for word in training if not word.startswith("common.user_dir=")]
    output = stock(*words, f"common.user_dir={tmp_path / 'broken'}", expect=1, folder=tmp_path)
    assert "RuntimeError: the plug-in was told to fail" in output
    assert "print_exception" not in output


def write_parallel_text(folder: Path) -> None:
    """A language pair in which the target is the source turned round."""
    words = ["a", "b", "c", "d", "e", "f"]
    for split, count in (("train", 60), ("valid", 6), ("test", 6)):
        lines = [[words[(i * k + k) % 6] for k in range(1, 5)] for i in range(count)]
        (folder / f"{split}.xx").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.yy").write_text("".join(" ".join(line[::-1]) + "\n" for line in lines))


@pytest.mark.slow
def test_argparse_commands_without_a_plug_in(tmp_path: Path) -> None:
    write_parallel_text(tmp_path)
    prefixes = [f"--{split}pref={tmp_path}/{split}" for split in ("train", "valid", "test")]
    preprocess = ("fairseq-preprocess", "-s", "xx", "-t", "yy", *prefixes, "--destdir", "bin")
    train = ("fairseq-train", "bin", "--arch", "transformer_tiny", "--optimizer", "adam", "--lr", "0.005")
    train += ("--batch-size", "20", "--num-workers", "1", "--cpu", "--save-dir", "saved")
    train += ("--no-progress-bar", "--log-format", "json")
    stock(*preprocess, folder=tmp_path)
    assert epochs(stock(*train, "--max-epoch", "1", folder=tmp_path)) == [1]
    assert epochs(stock(*train, "--max-epoch", "2", folder=tmp_path)) == [2]
    checkpoint = ("--path", "saved/checkpoint_last.pt", "--cpu", "--batch-size", "6")
    validated = stock("fairseq-validate", "bin", "--task", "translation", *checkpoint, folder=tmp_path)
    assert re.search(r"valid on 'valid' subset \| loss [0-9.]+", validated)
    generated = stock("fairseq-generate", "bin", *checkpoint, "--scoring", "wer", folder=tmp_path)
    assert re.search(r"Generate test with beam=5: WER: [0-9.]+", generated)


@pytest.mark.skipif(
    not (SITE_PACKAGES / "av_ssl_fairseq_hook.pth").exists(),
    reason="av_ssl is not installed into this Python",
)
def test_the_installed_command_finds_the_hook_by_itself(training: list[str], tmp_path: Path) -> None:
    command = shutil.which("fairseq-hydra-train", path=str(Path(sys.executable).parent))
    assert command is not None
    output = run_fresh(command, *training[1:], "optimization.max_epoch=2", folder=tmp_path)
    assert epochs(output) == [1, 2]
