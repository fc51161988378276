"""What was killed, or met a full disk, continues and gives the same, bit for bit; see ``tests/kills.py``.

AV_SSL_KILLS=100 pytest -s tests/test_kills.py -k kills
"""

import os
import random
import time

import pytest

from tests.kills import fill_disk, kill, reference, stages

KILLS = int(os.environ.get("AV_SSL_KILLS", "3"))
"""Of all three commands together."""
LARGEST_FILE = {"crop": 700, "targets": 300, "training": 150_000}
"""Bytes; less than the results take, and more than the log."""
COMMANDS = pytest.mark.parametrize("number", range(3), ids=["crop", "targets", "training"])


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
