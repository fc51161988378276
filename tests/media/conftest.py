"""Face detector and mesh, which keep no state, and cropping without worker processes."""

import pytest

from av_ssl.media import crop_folder
from av_ssl.media.face_mesh import FaceMesh
from tests.media.synthetic import run_in_process


@pytest.fixture(scope="session")
def mesh():
    return FaceMesh()


@pytest.fixture
def in_process(monkeypatch):
    """Crops in this process."""
    monkeypatch.setattr(crop_folder, "run_isolated", run_in_process)
