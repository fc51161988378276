"""The script that chains AV-HuBERT's iterations, with commands that only say how they were called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples/av_hubert/run.sh"

SAY = '#!/bin/bash\necho "$(basename "$0") $*" >>"$CALLS"\n'
# Dies at iteration 2 where the test wants it to.
TRAIN = (
    SAY + '[[ "$*" == *"$DIE_AT"* ]] && exit 1\nmkdir -p "$(sed "s/.*save_dir=\\([^ ]*\\).*/\\1/" <<<"$*")"\n'
)


@pytest.fixture
def run(tmp_path: Path):
    """Calls the script; gives the commands that it ran, its output and its exit status."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("av-ssl", SAY), ("fairseq-hydra-train", TRAIN)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / "data").mkdir()
    calls = tmp_path / "calls"

    def call(*options: str, die_at: str = "nowhere", data: str = "data"):
        calls.write_text("")
        path = f"{commands}:{os.environ['PATH']}"
        done = subprocess.run(
            [SCRIPT, tmp_path / data, tmp_path / "out", *options], capture_output=True, text=True, cwd="/",
            env={**os.environ, "PATH": path, "CALLS": str(calls), "DIE_AT": die_at},
        )  # fmt: skip
        return calls.read_text().splitlines(), done.stdout + done.stderr, done.returncode

    return call


def test_five_iterations(run, tmp_path: Path):
    calls, _, status = run("--gpus", "4")
    assert status == 0
    targets, trainings = calls[::2], calls[1::2]
    assert [re.search(r"--clusters (\d+)", call)[1] for call in targets] == [
        "100",
        "100",
        "500",
        "1000",
        "2000",
    ]
    assert "--label-name mfcc" in targets[0]
    assert "--checkpoint" not in targets[0]
    for iteration, layer in ((2, 9), (3, 12), (4, 12), (5, 12)):
        checkpoint = tmp_path / f"out/iteration{iteration - 1}/checkpoint_last.pt"
        assert f"--checkpoint {checkpoint} --layer {layer} --device cuda" in targets[iteration - 1]
    for iteration, call in enumerate(trainings, start=1):
        assert f"--config-name base_lrs3_iter{iteration} " in call
        assert f"task.label_dir={tmp_path}/out/labels{iteration} " in call
        assert "distributed_training.distributed_world_size=4" in call
        assert "max_update" not in call


def test_goes_on_where_it_was_killed(run):
    calls, _, status = run("--iterations", "3", die_at="base_lrs3_iter2")
    assert status == 1
    assert len(calls) == 4
    calls, output, status = run("--iterations", "3")
    assert status == 0
    assert "iteration 1 is trained" in output
    trained = [re.search(r"base_lrs3_iter\d", call)[0] for call in calls if call.startswith("fairseq")]
    assert trained == ["base_lrs3_iter2", "base_lrs3_iter3"]


def test_trial_on_a_cpu(run):
    calls, _, _ = run(
        "--iterations", "1", "--gpus", "0", "--updates", "200", "--corpus", "vox", "--", "a.b=c d"
    )
    assert "--config-name base_vox_iter1" in calls[1]
    for override in (
        "max_update=200",
        "total_num_update=200",
        "warmup_updates=16",
        "common.cpu=true",
        "a.b=c d",
    ):
        assert override in calls[1]
    calls, _, _ = run("--iterations", "1", "--gpus", "0", "--updates", "300", "--corpus", "vox")
    assert len(calls) == 2  # more updates are asked for: it is not finished


def test_print_runs_nothing(run, tmp_path: Path):
    calls, output, status = run("--print", "--iterations", "2")
    assert (calls, status) == ([], 0)
    assert len(re.findall(r"^\+ ", output, re.MULTILINE)) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "1"], "unknown option --gpu"),
        (["--gpus"], "--gpus needs a value"),
        (["--gpus", "two"], "--gpus is two"),
        (["--iterations", "6"], "--iterations is 6; take 1 to 5"),
        (["--corpus", "lrs2"], "take lrs3 or vox"),
        (["--clusters", "10,20"], "--clusters names 2 numbers for 5 iterations"),
        (["--updates", "1e5"], "--updates is 1e5"),
        (["third"], "Usage"),
    ],
)
def test_mistakes_are_named(run, options, message):
    calls, output, status = run(*options)
    assert (calls, status) == ([], 2)
    assert message in output


def test_data_must_be_there(run):
    calls, output, status = run(data="none/such")
    assert (calls, status) == ([], 2)
    assert "none/such: there is no such folder" in output
