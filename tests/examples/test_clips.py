from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clips import fit, main

from av_ssl.data.reading import read_crops, read_wave
from av_ssl.manifest import read_manifest

FRAMES = (5, 6, 4, 9, 7)
SAMPLES = (3200, 3000, 5000, 5760, 4480)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clips whose frames hold their number."""
    rng = np.random.default_rng(0)
    lines = ["/"]
    for number, (frames, samples) in enumerate(zip(FRAMES, SAMPLES, strict=True)):
        video, audio = tmp_path / f"{number}.npy", tmp_path / f"{number}.wav"
        np.save(video, np.full((frames, 4, 4), number, np.uint8))
        soundfile.write(audio, rng.integers(1, 99, samples, dtype=np.int16), 16000)
        lines.append(f"s/{number}\t{video}\t{audio}\t{frames}\t{samples}")
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.wrd").write_text("a\nb\nc\nd\ne\n")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["clips.py", *map(str, words)])
    main()


def test_clips_are_joined_two_by_two(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "join", data, "test", data / "long")
    clips = read_manifest(data / "long/test.tsv")
    found = [(clip.id, clip.frames, clip.samples) for clip in clips]
    assert found == [("s-0+s-1", 11, 11 * 640), ("s-2+s-3", 13, 13 * 640)]
    assert (data / "long/test.wrd").read_text() == "a b\nc d\n"
    assert read_crops(clips[0].video)[:, 0, 0].tolist() == [0] * 5 + [1] * 6
    wave = read_wave(clips[0].audio)
    assert np.array_equal(wave[3200:6200], read_wave(data / "1.wav"))
    assert not wave[6200:].any()  # the second clip's audio is shorter than its video


def shuffled(data: Path, out: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of the clip whose video each clip has."""
    run(monkeypatch, "shuffle", data, out, "--seed", seed)
    return [int(read_crops(clip.video)[0, 0, 0]) for clip in read_manifest(out / "train.tsv")]


def test_every_clip_gets_the_video_of_another(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = shuffled(data, data / "out", 3, monkeypatch)
    assert sorted(sources) == list(range(len(FRAMES)))
    assert all(source != number for number, source in enumerate(sources))
    before, after = (read_manifest(folder / "train.tsv") for folder in (data, data / "out"))
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.audio, new.frames, new.samples) == (old.id, old.audio, old.frames, old.samples)
        assert len(read_crops(new.video)) == old.frames
    assert read_manifest(data / "out/valid.tsv") == read_manifest(data / "valid.tsv")


def test_the_seed_decides(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [shuffled(data, data / f"out{n}", seed, monkeypatch) for n, seed in enumerate((1, 1, 2))]
    assert found[0] == found[1] != found[2]


def test_short_video_is_played_back_and_forth() -> None:
    video = np.arange(3, dtype=np.uint8)[:, None, None]
    assert fit(video, 7).ravel().tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert fit(video, 2).ravel().tolist() == [0, 1]
    assert fit(video[:1], 3).ravel().tolist() == [0, 0, 0]


def test_one_clip_cannot_be_shuffled(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (data / "train.tsv").read_text().splitlines()
    (data / "train.tsv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match=r"train\.tsv: .*at least 2"):
        shuffled(data, data / "out", 3, monkeypatch)


def test_other_clips_lose_their_class(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = data / "labelled_2"
    few.mkdir()
    lines = (data / "train.tsv").read_text().splitlines()
    (few / "train.tsv").write_text("\n".join([lines[0], lines[2], lines[4]]) + "\n")
    (few / "classes.emo.txt").write_text("v\nx\n")
    for split in ("train", "valid"):
        (data / f"{split}.emo").write_text("u\nv\nw\nx\nv\n")
    run(monkeypatch, "unlabel", data, few, data / "out", "--label", "emo")
    assert (data / "out/train.emo").read_text().split() == ["-", "v", "-", "x", "-"]
    assert (data / "out/valid.emo").read_text() == (data / "valid.emo").read_text()
    assert (data / "out/classes.emo.txt").read_text() == "v\nx\n"
    assert read_manifest(data / "out/train.tsv") == read_manifest(data / "train.tsv")
