"""Fixtures of the tests of targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.targets.small_corpus import write_checkpoint, write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt")
