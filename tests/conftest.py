"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import av_ssl  # noqa: F401 - its import hook must stand before that of pytest, which takes hydra's modules

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips and a reference checkpoint that may lie beside a checkout; tests skip without them."""
    folder = Path(os.environ.get("AV_SSL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set AV_SSL_TEST_DATA)")
    return folder
