"""A data folder and a recogniser, all tiny."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data_folder import write_data
from tests.tiny_checkpoints import write_recogniser


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists `train` and `valid` of 9 and 3 clips."""
    return write_data(tmp_path / "data")


@pytest.fixture(scope="session")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recogniser(tmp_path_factory.mktemp("ctc") / "ctc.pt", "av_hubert_ctc")
