"""A short form of ``tests/kills.py``: what was killed, or met a full disk, continues and gives the same."""

import random

import pytest

from tests.kills import fill_disk, kill, reference, stages

LARGEST_FILE = {"crop": 700, "targets": 300, "training": 20_000}
"""Bytes; less than the results take."""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["crop", "targets", "training"])
def test_two_kills(tmp_path, number):
    kill(stages(tmp_path)[number], tmp_path / "out", 2, random.Random(number))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["crop", "targets", "training"])
def test_a_full_disk(tmp_path, number):
    stage = stages(tmp_path)[number]
    expected, _ = reference(stage, tmp_path / "reference")
    output = fill_disk(stage, tmp_path / "out", expected, LARGEST_FILE[stage.name])
    assert "cannot be written" in output
