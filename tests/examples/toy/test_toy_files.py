from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from corpus import files
from corpus.clip import Clip
from corpus.visemes import DIMENSIONS


@pytest.fixture(scope="module")
def written(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, Path]:
    root = tmp_path_factory.mktemp("corpus")
    files.write_clip(root, clips[0])
    return clips[0], root


def test_the_video_is_ordinary(written: tuple[Clip, Path]) -> None:
    clip, root = written
    with av.open(str(root / f"{clip.slot.name}.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, video.average_rate) == ("h264", "yuv420p", 25)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 22050, 1)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
    difference = np.array(frames).astype(float) - clip.frames
    assert len(frames) == len(clip.frames)
    assert 20 * np.log10(255 / np.sqrt((difference**2).mean())) > 30  # dB


def test_the_sound_is_in_time(written: tuple[Clip, Path]) -> None:
    clip, root = written
    with av.open(str(root / f"{clip.slot.name}.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    wave = clip.wave / 32768
    length = len(wave)
    spectrum = np.fft.rfft(sound[:length], 2 * length) * np.conj(np.fft.rfft(wave, 2 * length))
    assert np.argmax(np.fft.irfft(spectrum)) == 0
    assert np.corrcoef(sound[:length], wave)[0, 1] > 0.98


def test_the_transcript_has_the_form_of_lrs3(written: tuple[Clip, Path]) -> None:
    clip, root = written
    lines = (root / f"{clip.slot.name}.txt").read_text().splitlines()
    assert re.fullmatch(r"Text:  [A-Z]+( [A-Z]+){4}", lines[0])
    assert lines[1:4] == ["Conf:  1", "", "WORD START END"]
    rows = [line.split() for line in lines[4:]]
    assert [row[0] for row in rows] == lines[0].split()[1:]
    times = [float(time) for row in rows for time in row[1:]]
    assert times == sorted(times)
    assert times[-1] < len(clip.frames) / 25


def test_the_alignment_holds_phones_visemes_and_lips(written: tuple[Clip, Path]) -> None:
    clip, root = written
    alignment = json.loads((root / "alignments" / f"{clip.slot.name}.json").read_text())
    assert alignment["id"] == clip.slot.name
    assert alignment["words"][0][0] == clip.words[0].label
    assert len(alignment["phones"]) == len(clip.phones)
    assert alignment["visemes"]["columns"] == list(DIMENSIONS)
    np.testing.assert_allclose(alignment["visemes"]["rows"], clip.track, atol=6e-4)
    np.testing.assert_allclose(alignment["lips"]["gap"], clip.lips.gap, atol=6e-3)


def test_a_full_disk_leaves_nothing_that_looks_finished(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(path: Path, *_: object) -> None:
        path.write_bytes(b"half a vid")
        raise av.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write_video", encode)
    with pytest.raises(OSError, match="No space left"):
        files.write_clip(tmp_path, clips[0])
    assert not files.is_finished(tmp_path, clips[0].slot)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".mp4", ".part"}]
