from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from long_clips import main

from av_ssl.data.reading import read_crops, read_wave
from av_ssl.layout import read_manifest


def test_clips_are_joined_two_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lines = ["/"]
    for number, (frames, samples) in enumerate([(5, 3200), (6, 3000), (4, 5000), (9, 5760), (7, 4480)]):
        np.save(tmp_path / f"{number}.npy", rng.integers(0, 256, (frames, 8, 8), dtype=np.uint8))
        soundfile.write(tmp_path / f"{number}.wav", rng.integers(1, 99, samples, dtype=np.int16), 16000)
        lines.append(
            f"s/{number}\t{tmp_path / f'{number}.npy'}\t{tmp_path / f'{number}.wav'}\t{frames}\t{samples}"
        )
    (tmp_path / "test.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.wrd").write_text("a\nb\nc\nd\ne\n")
    monkeypatch.setattr(sys, "argv", ["long_clips.py", str(tmp_path), str(tmp_path / "long")])
    main()
    clips = read_manifest(tmp_path / "long/test.tsv")
    assert [(clip.id, clip.frames, clip.samples) for clip in clips] == [
        ("s-0+s-1", 11, 11 * 640), ("s-2+s-3", 13, 13 * 640),
    ]  # fmt: skip
    assert (tmp_path / "long/test.wrd").read_text() == "a b\nc d\n"
    assert np.array_equal(read_crops(clips[0].video)[5:], np.load(tmp_path / "1.npy"))
    wave = read_wave(clips[0].audio)
    assert np.array_equal(wave[3200:6200], read_wave(tmp_path / "1.wav"))
    assert not wave[6200:].any()  # the second clip's sound was shorter than its pictures
