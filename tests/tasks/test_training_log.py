"""The summary of a training, the time left, and what is left out of fairseq's log."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.logging import metrics
from omegaconf import OmegaConf

from av_ssl.manifest import Clip
from av_ssl.tasks.training_log import FIRST_ESTIMATE, TrainingLog, for_people
from tests.data_folder import listed_clips


class Clips:
    sizes = np.full(9, 25 * 3600)
    clips = listed_clips(*range(10, 19))

    def __len__(self) -> int:
        return 9


def started(max_update: int, max_epoch: int = 0, frozen: bool = True) -> TrainingLog:
    root = OmegaConf.create(
        {
            "optimization": {"max_update": max_update, "max_epoch": max_epoch, "update_freq": [2]},
            "model": {"freeze_finetune_updates": 50} if frozen else {"dropout": 0.1},
        }
    )
    OmegaConf.set_struct(root, True)
    now = iter(range(0, 100_000, 36))
    log = TrainingLog(root, clock=lambda: next(now))
    log.describe_model("toy", torch.nn.Linear(1000, 1000))
    log.start(Clips(), 7, {})
    return log


def test_clips_of_training_in_validation_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """By id or by file, in one line."""
    dataset = Clips()
    dataset.clips = [Clip("a", Path("a.mp4"), None, 9, 0, 2), Clip("b", Path("b.mp4"), None, 9, 0, 3)]
    held_out = Clips()
    held_out.clips = [
        Clip("c", Path("c.mp4"), None, 9, 0, 2),
        Clip("b", Path("other.mp4"), None, 9, 0, 3),
        Clip("d", Path("a.mp4"), None, 9, 0, 4),
    ]
    apart = Clips()
    apart.clips = held_out.clips[:1]
    log = started(max_update=110)
    log.started = False
    for _ in range(2):
        log.start(dataset, 7, {"train": dataset, "valid": held_out, "test": apart})
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "2 of 9 clips of valid" in warning
    assert "e.g. b)" in warning


@pytest.mark.parametrize("frozen", [True, False])
def test_summary_estimate_and_time_left(frozen: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = started(max_update=110, frozen=frozen)
    log.start(Clips(), 7, {})  # of the second epoch
    with metrics.aggregate(new_root=True) as aggregator:
        for done in range(1, FIRST_ESTIMATE + 2):
            log.end_update(done)
        # The last value, not the mean of the interval.
        assert aggregator.get_smoothed_values()["hours_left"] == pytest.approx((110 - done) / 100, abs=1e-3)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:3] == [
        "data: 9 clips, 9.00 hours, 4 updates an epoch",
        "model: toy, 1.0 M parameters, 1.0 M of them trained",
        "training: 110 updates = 27.5 epochs",
    ]
    (estimate,) = lines[3:]
    assert "36.00 s an update" in estimate
    assert ("after 50" in estimate) == frozen


@pytest.mark.parametrize(
    ("max_update", "max_epoch", "updates"), [(0, 5, 20), (7, 5, 7), (100, 5, 20), (0, 0, 0)]
)
def test_the_end_of_training(max_update: int, max_epoch: int, updates: int) -> None:
    assert started(max_update, max_epoch).updates == updates


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (torch.nn.Linear(1, 1), False),
        ("detected shared parameter: a <- b", False),
        ("num. expert model params: 0", False),
        ("num. shared model params: 7", True),
        ({"common": {}}, True),
    ],
)
def test_what_is_left_out(message: object, shown: bool) -> None:
    record = SimpleNamespace(msg=message)
    assert for_people(record) == shown  # type: ignore[arg-type]
