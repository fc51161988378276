"""The toy corpus is a program, not part of the package: its folder is put on the path, as running it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOY = Path(__file__).resolve().parents[3] / "examples" / "toy"
if str(TOY) not in sys.path:
    sys.path.insert(0, str(TOY))

from corpus.clip import Clip, Settings, Slot, Studio  # noqa: E402
from corpus.photographs import Portrait, load_portraits  # noqa: E402
from corpus.speech import Synthesiser  # noqa: E402

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
