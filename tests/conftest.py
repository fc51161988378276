"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import av_ssl  # noqa: F401 - its import hook must stand before that of pytest, which takes hydra's modules
from tests.data_folder import write_data

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips and a reference checkpoint that may lie beside a checkout; tests skip without them."""
    folder = Path(os.environ.get("AV_SSL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set AV_SSL_TEST_DATA)")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists ``train`` and ``valid`` of 9 and 3 clips of 10, 11, 12, ... frames."""
    return write_data(tmp_path / "data")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A fused encoder of three layers."""
    from tests.tiny_checkpoints import write_checkpoint  # needs torch, as few of the tests do

    return write_checkpoint(tmp_path / "model.pt")


@pytest.fixture(scope="session")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser with a CTC head, of both streams."""
    from tests.tiny_checkpoints import write_recogniser  # likewise

    return write_recogniser(tmp_path_factory.mktemp("ctc") / "ctc.pt", "av_hubert_ctc")
