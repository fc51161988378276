from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from mispair import derangement, fit, main

from av_ssl.data.reading import read_crops
from av_ssl.layout import read_manifest

FRAMES = (5, 6, 4, 9, 7, 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clips whose pictures hold their number."""
    lines = ["/"]
    for number, frames in enumerate(FRAMES):
        np.save(tmp_path / f"{number}.npy", np.full((frames, 4, 4), number, np.uint8))
        lines.append(
            f"s/{number}\t{tmp_path}/{number}.npy\t{tmp_path}/{number}.wav\t{frames}\t{640 * frames}"
        )
    for split in ("train", "valid"):
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(data: Path, out: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whose pictures each clip got."""
    monkeypatch.setattr(sys, "argv", ["mispair.py", str(data), str(out), "--seed", str(seed)])
    main()
    return [int(read_crops(clip.video)[0, 0, 0]) for clip in read_manifest(out / "train.tsv")]


def test_every_clip_gets_the_pictures_of_another(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = run(data, data / "out", 3, monkeypatch)
    assert sorted(sources) == list(range(len(FRAMES)))
    assert all(source != number for number, source in enumerate(sources))
    before, after = (read_manifest(folder / "train.tsv") for folder in (data, data / "out"))
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.audio, new.frames, new.samples) == (old.id, old.audio, old.frames, old.samples)
        assert len(read_crops(new.video)) == old.frames


def test_validation_clips_stay_as_they_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(data, data / "out", 3, monkeypatch)
    assert read_manifest(data / "out" / "valid.tsv") == read_manifest(data / "valid.tsv")


def test_the_seed_decides(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (run(data, data / f"out{n}", seed, monkeypatch) for n, seed in enumerate((1, 1, 2)))
    assert first == again != other


def test_short_pictures_are_played_back_and_forth() -> None:
    pictures = np.arange(3, dtype=np.uint8)[:, None, None]
    assert fit(pictures, 7).ravel().tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert fit(pictures, 2).ravel().tolist() == [0, 1]
    assert fit(pictures[:1], 3).ravel().tolist() == [0, 0, 0]


def test_one_clip_has_nobody_to_swap_with() -> None:
    assert derangement(2, np.random.default_rng(0)).tolist() == [1, 0]
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, np.random.default_rng(0))
