"""Clips of the toy corpus, their files, and the corpus as a folder."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from corpus.clip import FRAME_RATE, SILENCE, Clip, Settings, Slot, Studio
from corpus.look import Portrait
from corpus.visemes import DIMENSIONS
from make_corpus import main

pytestmark = pytest.mark.usefixtures("portraits", "synthesiser")


def test_pictures_and_sound_last_equally_long(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape[1:] == (160, 160, 3)
        assert clip.wave.dtype == np.int16
        assert len(clip.wave) * FRAME_RATE == len(clip.frames) * clip.rate
        assert len(clip.track) == len(clip.lips.gap) == len(clip.frames)


def test_times_lie_within_the_clip_with_silence_around(clips: list[Clip]) -> None:
    for clip in clips:
        duration = len(clip.frames) / FRAME_RATE
        assert clip.words[0].start >= SILENCE[0]
        assert clip.words[-1].end <= duration - SILENCE[0]
        assert all(one.end <= other.start for one, other in pairwise(clip.words))
        silence = clip.wave[: int(clip.words[0].start * clip.rate) - 100]
        assert silence.std() < 100 < clip.wave.std()


def test_a_clip_does_not_depend_on_those_before(portraits: list[Portrait], clips: list[Clip]) -> None:
    again = Studio(Settings(difficulty=0), portraits).record(Slot("test", 2, 4))
    np.testing.assert_array_equal(again.frames, clips[2].frames)
    np.testing.assert_array_equal(again.wave, clips[2].wave)
    assert again.words == clips[2].words


def test_speakers_and_splits_differ(clips: list[Clip]) -> None:
    assert [clip.slot.name for clip in clips] == [f"test/t{k:03d}/{k:05d}" for k in range(4)]
    assert len({clip.voice.name.split("+")[-1] for clip in clips}) == 4
    assert len({clip.photograph.removesuffix("_mirrored") for clip in clips}) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"speakers": 0}, "speakers is 0"),
        ({"difficulty": 1.5}, r"difficulty is 1\.5"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"frame_size": 90}, "frame size is 90"),
        ({"frame_size": 1024}, "frame size is 1024"),
        ({"link": 1.5, "emotions": True}, r"link is 1\.5"),
        ({"link": 1.0}, r"link is 1\.0: .*emotions"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_link_ties_faces_to_voices(portraits: list[Portrait]) -> None:
    """Same sentence and voice whatever the link; the face is that of the voice, or another."""
    slots = [Slot("test", number, 2) for number in (0, 2)]
    full, none = (
        [Studio(Settings(frame_size=96, emotions=True, link=link), portraits).record(slot) for slot in slots]
        for link in (1.0, 0.0)
    )
    for one, other in zip(full, none, strict=True):
        np.testing.assert_array_equal(one.wave, other.wave)
        assert (one.words, one.voice, one.emotion) == (other.words, other.voice, other.emotion)
    assert all((one.frames != other.frames).mean() > 0.3 for one, other in zip(full, none, strict=True))
    assert 0 < abs(full[0].voice.tilt) <= 1


@pytest.fixture(scope="module")
def written(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, Path]:
    root = tmp_path_factory.mktemp("corpus")
    clips[0].write(root)
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
    complete = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        if len(content) < 20_000:  # not the video
            return complete(path, content)
        complete(path, content[:99])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        clips[0].write(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".mp4", ".part"}]


SMALL = ["--valid", "1", "--test", "1", "--speakers", "2", "--frame-size", "96"]


def make(out: Path, *extra: str) -> int:
    return main([str(out), "--train", "2", *SMALL, *extra])


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(portraits: object, synthesiser: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by two workers."""
    out = tmp_path_factory.mktemp("toy") / "a corpus"
    assert make(out, "--workers", "2") == 0
    return out


def test_the_folders_are_those_of_lrs3(corpus: Path) -> None:
    names = ["pretrain/p000/00000", "pretrain/p001/00001", "test/t000/00000", "valid/v000/00000"]
    expected = {f"{name}{suffix}" for name in names for suffix in (".mp4", ".txt")}
    expected |= {f"alignments/{name}.json" for name in names} | {"corpus.json"}
    assert set(digests(corpus)) == expected


def test_one_worker_makes_the_same_bytes_as_two(corpus: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again", "--workers", "1") == 0
    assert digests(tmp_path / "again") == digests(corpus)


def test_another_run_makes_only_what_is_missing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(corpus)
    gone = corpus / "pretrain" / "p001" / "00001.mp4"
    kept = corpus / "pretrain" / "p000" / "00000.mp4"
    written = kept.stat().st_mtime_ns
    gone.unlink()
    assert make(corpus, "--workers", "1") == 0
    assert "1 clips made, 3 were there" in capsys.readouterr().out
    assert digests(corpus) == before
    assert kept.stat().st_mtime_ns == written


def test_a_corpus_of_other_settings_is_left_alone(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(corpus)
    assert make(corpus, "--seed", "1") == 1
    assert "corpus.json" in (error := capsys.readouterr().err)
    assert "choose another folder" in error
    assert digests(corpus) == before


def test_a_corpus_does_not_shrink(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus), "--train", "1", *SMALL]) == 1
    assert "holds 2 clips of pretrain, asked for 1" in capsys.readouterr().err


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.json").write_text("[]")
    assert make(tmp_path) == 1
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "0", "--valid", "0", "--test", "0"], "no clips asked for"),
        (["--train", "-1"], "-1 clips asked for pretrain"),
        (["--workers", "0"], "workers is 0"),
        (["--difficulty", "2"], "difficulty is 2.0"),
        (["--frame-size", "97"], "frame size is 97"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(out), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert make(tmp_path / "file" / "out") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "file" / "out") in error


def test_without_espeak_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert make(tmp_path / "out") == 1
    assert "pip install 'av_ssl[toy]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
