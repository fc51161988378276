"""Kills preprocessing, target making and training at random moments, and fills the disk under them.

Each command is started again after a kill, until it ends by itself; what it made must then equal, bit for
bit, what an uninterrupted run makes.

    AV_SSL_KILLS=100 pytest -s tests/test_kills.py -k kills
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu

from tests.data_folder import write_data
from tests.media.synthetic import talking_head
from tests.stock import REPOSITORY, run_for
from tests.tasks.conftest import SCHEDULE, TINY_ENCODER, hydra_train

LONGEST = 300.0
"""Seconds; no command takes so long."""
KILLS = int(os.environ.get("AV_SSL_KILLS", "3"))
"""Of all three commands together."""
LARGEST_FILE = {"crop": 700, "targets": 300, "training": 150_000}
"""Bytes; less than the results take, and more than the log."""
COMMANDS = pytest.mark.parametrize("number", range(3), ids=["crop", "targets", "training"])
Results = dict[str, str]
"""Digest of each result, by its name."""


@dataclass(frozen=True)
class Stage:
    """A command, for a folder that it writes, and what is in that folder at the end."""

    name: str
    words: Callable[[Path], list[object]]
    results: Callable[[Path], Results]


def digests(folder: Path, patterns: tuple[str, ...]) -> Results:
    files = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def state_digest(folder: Path) -> Results:
    """Of all tensors of a run's last checkpoint: model, teacher and optimizer."""
    path = folder / "checkpoint_last.pt"
    if not path.exists():
        return {}
    state = load_checkpoint_to_cpu(str(path))
    found = hashlib.sha256()
    for part in (state["model"], *state["last_optimizer_state"]["state"].values()):
        for name, value in sorted(part.items()):
            content = value.contiguous().numpy().tobytes() if torch.is_tensor(value) else repr(value).encode()
            found.update(f"{name} {len(content)} ".encode() + content)
    updates = state["optimizer_history"][-1]["num_updates"]
    return {f"{updates} updates": found.hexdigest()}


def stages(folder: Path) -> list[Stage]:
    """Crops of six videos; clusters of MFCC; three updates of AV2vec with data workers."""
    for clip in range(6):
        talking_head(folder / "videos" / f"{clip}.mp4", frames=8, shift=clip % 3)
    data = write_data(folder / "data")
    pretrain = [f"task.data={data}", "optimization.max_update=3", *TINY_ENCODER, *SCHEDULE]
    often = ["checkpoint.save_interval_updates=1", "dataset.num_workers=2", "model.encoder_layerdrop=0.2"]
    return [
        Stage(
            "crop",
            lambda out: ["av-ssl", "crop", folder / "videos", out, "--workers", 1],
            lambda out: digests(out, ("video/**/*", "audio/**/*", "clips.tsv")),
        ),
        Stage(
            "targets",
            lambda out: [
                "av-ssl", "targets", "clusters", data, "--out", out, "--clusters", 5, "--fit-share", 1,
                "--workers", 1,
            ],
            lambda out: digests(out, ("*.km", "dict.*.txt")),
        ),
        Stage("training", lambda out: [*hydra_train("pretrain", out), *pretrain, *often], state_digest),
    ]  # fmt: skip


def reference(stage: Stage, out: Path) -> tuple[Results, float]:
    """Results and seconds of a run without a kill."""
    start = time.monotonic()
    status, output = run_for(LONGEST, *stage.words(out), folder=REPOSITORY)
    assert status == 0, output[-3000:]
    results = stage.results(out)
    assert results, f"{stage.name} has no results"
    return results, time.monotonic() - start


def killed_once(stage: Stage, out: Path, seconds: float, expected: Results) -> bool:
    """Run a stage for some seconds; whether it had to be killed.  What looks finished must be right."""
    status, output = run_for(seconds, *stage.words(out), folder=REPOSITORY)
    assert status in (None, 0), f"{stage.name} cannot continue: {output[-3000:]}"
    if status == 0:
        assert stage.results(out) == expected, f"{stage.name}: other results"
    elif stage.name != "training":
        found = stage.results(out)
        wrong = [name for name, digest in found.items() if name in expected and digest != expected[name]]
        # A list of clips grows, all other files appear when they are complete.
        assert set(wrong) <= {"clips.tsv"}, f"{stage.name}: {wrong} look finished"
    return status is None


def kill(stage: Stage, out: Path, kills: int, rng: random.Random) -> int:
    """Kill a stage so many times, each at a random moment; returns the number of runs that ended."""
    expected, seconds = reference(stage, out.with_name("reference"))
    done = ended = 0
    while done < kills:
        start = time.monotonic()
        if killed_once(stage, out, rng.uniform(0.02, 1.0) * seconds, expected):
            done += 1
            if stage.name == "training" and stage.results(out) == expected:
                shutil.rmtree(out)  # killed behind its last update, to which fairseq would add another one
        else:
            ended += 1
            seconds = time.monotonic() - start  # the machine may be less busy than it was
            shutil.rmtree(out)
    assert not killed_once(stage, out, LONGEST, expected)
    return ended + 1


def fill_disk(stage: Stage, out: Path, expected: Results, largest_file: int) -> str:
    """Run a stage where no file can be larger, then without that; returns the first run's output."""
    status, output = run_for(LONGEST, *stage.words(out), folder=REPOSITORY, largest_file=largest_file)
    assert status != 0, f"{stage.name} wrote no file of {largest_file} bytes"
    found = stage.results(out)
    assert all(digest == expected.get(name) for name, digest in found.items()), f"{stage.name}: torn files"
    assert not killed_once(stage, out, LONGEST, expected)
    return output


@pytest.mark.slow
@COMMANDS
def test_kills(tmp_path, number):
    kills, start = (KILLS + number) // 3, time.monotonic()
    stage = stages(tmp_path)[number]
    ended = kill(stage, tmp_path / "out", kills, random.Random(number))
    print(f"{stage.name}: {kills} kills, {ended} runs ended, all equal, {time.monotonic() - start:.0f} s")


@pytest.mark.slow
@pytest.mark.skipif("AV_SSL_KILLS" not in os.environ, reason="takes half a minute: set AV_SSL_KILLS")
@COMMANDS
def test_a_full_disk(tmp_path, number):
    stage = stages(tmp_path)[number]
    expected, _ = reference(stage, tmp_path / "reference")
    output = fill_disk(stage, tmp_path / "out", expected, LARGEST_FILE[stage.name])
    assert "cannot be written" in output
