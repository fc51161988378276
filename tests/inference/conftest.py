"""A data folder, a pre-trained checkpoint and a recogniser, all tiny."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data_folder import write_data
from tests.tiny_checkpoints import write_checkpoint, write_recogniser


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists `train` and `valid` of 9 and 3 clips."""
    return write_data(tmp_path / "data")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt")


@pytest.fixture(scope="session")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recogniser(tmp_path_factory.mktemp("ctc") / "ctc.pt", "av_hubert_ctc")
