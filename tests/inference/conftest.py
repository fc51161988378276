"""A data folder and a pre-trained checkpoint, both tiny."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data_folder import write_data
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists `train` and `valid` of 9 and 3 clips."""
    return write_data(tmp_path / "data")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt")
