"""The examples are programs, not part of the package: their folders are put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "toy"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "experiments"))

from corpus.clip import Clip, Settings, Slot, Studio
from corpus.look import Portrait, load_portraits
from corpus.speech import Synthesiser

from av_ssl.media.face_mesh import FaceMesh

NEEDS_EXTRA = "the toy corpus needs the extra av_ssl[toy]"


@pytest.fixture(scope="session")
def face_mesh() -> FaceMesh:
    return FaceMesh()


@pytest.fixture(scope="session")
def portraits(face_mesh: FaceMesh) -> list[Portrait]:
    for package in ("skimage", "matplotlib"):
        pytest.importorskip(package, reason=NEEDS_EXTRA)
    return load_portraits(face_mesh.find)


@pytest.fixture(scope="session")
def synthesiser() -> Synthesiser:
    pytest.importorskip("espeakng_loader", reason=NEEDS_EXTRA)
    return Synthesiser()


@pytest.fixture(scope="session")
def clips(portraits: list[Portrait], synthesiser: Synthesiser) -> list[Clip]:
    """Four clear clips of four speakers, two of each photograph."""
    studio = Studio(Settings(difficulty=0), portraits)
    return [studio.record(Slot("test", number, 4)) for number in range(4)]
