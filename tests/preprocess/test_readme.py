"""The documentation of preprocessing names every reason that the code gives."""

from pathlib import Path

import pytest

from av_ssl.media import crop_folder, crops

README = Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md"
REASONS = [
    "UNREADABLE",
    "NO_VIDEO",
    "NO_AUDIO",
    "NO_FACE",
    "NO_LANDMARKS",
    "TOO_SHORT",
    "WRITE_FAILED",
    "CRASHED",
    "BAD_NAME",
]


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_is_explained(name):
    reason = getattr(crops, name, None) or getattr(crop_folder, name)
    assert f"`{reason}`" in README.read_text(encoding="utf-8")
