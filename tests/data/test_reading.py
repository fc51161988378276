from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from av_ssl.data.reading import read_crops, read_wave
from av_ssl.errors import DataError, MediaError
from av_ssl.manifest import read_manifest
from tests.data.conftest import write_video


def test_wave_keeps_its_integers(tmp_path: Path) -> None:
    wave = np.array([0, 1, -1, 32767, -32768], np.int16)
    soundfile.write(tmp_path / "é: 1.wav", wave, 16000, subtype="PCM_16")
    read = read_wave(tmp_path / "é: 1.wav")
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, wave)


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.ones(800, np.int16), 8000, r"8000 Hz and 1 channel.*ffmpeg"),
        (np.ones((800, 2), np.int16), 16000, "16000 Hz and 2 channel"),
        (np.ones(0, np.int16), 16000, "holds no samples"),
    ],
)
def test_unusable_waves_are_refused(tmp_path: Path, wave: np.ndarray, rate: int, message: str) -> None:
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="PCM_16")
    with pytest.raises(MediaError, match=message):
        read_wave(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 256), ("WAV", "PCM_16", 0), ("WAV", "PCM_24", 0), ("WAV", "PCM_32", 0),
        ("WAV", "FLOAT", 0), ("WAV", "DOUBLE", 0), ("WAV", "ULAW", 1024), ("WAV", "ALAW", 1024),
        ("WAVEX", "PCM_16", 0), ("WAVEX", "FLOAT", 0), ("RF64", "PCM_16", 0), ("RF64", "FLOAT", 0),
        ("W64", "DOUBLE", 0), ("AIFF", "FLOAT", 0), ("CAF", "FLOAT", 0), ("FLAC", "PCM_16", 0),
        ("OGG", "VORBIS", 1500),
    ],
)  # fmt: skip
def test_every_kind_of_samples_is_the_same_sound(
    tmp_path: Path, container: str, subtype: str, tolerance: int
) -> None:
    wave = (20000 * np.sin(np.arange(16000) * 0.05)).astype(np.int16)
    soundfile.write(tmp_path / "a", wave / 32768, 16000, subtype=subtype, format=container)
    assert np.abs(read_wave(tmp_path / "a").astype(int) - wave).max() <= tolerance


def test_loud_samples_of_a_lossy_codec_do_not_wrap_around(tmp_path: Path) -> None:
    """What a limiter left at full scale is beyond it once it is decoded."""
    time = np.arange(16000) / 16000
    loud = np.clip(3 * np.sin(2 * np.pi * 200 * time) + np.sin(2 * np.pi * 1310 * time), -1, 1)
    soundfile.write(tmp_path / "a.ogg", loud, 16000, format="OGG", subtype="VORBIS")
    assert np.abs(soundfile.read(tmp_path / "a.ogg")[0]).max() > 1.05
    assert np.abs(read_wave(tmp_path / "a.ogg").astype(float) - 32768 * loud).max() < 20000


def test_samples_beyond_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([1.5, -1.5, 0.5]), 16000, subtype="FLOAT")
    assert read_wave(path).tolist() == [32767, -32768, 16384]
    for wave in ([20000.0, -3.0], [0.1, np.nan], [np.inf, 0.1]):
        soundfile.write(path, np.array(wave), 16000, subtype="DOUBLE")
        with pytest.raises(MediaError, match=r"a\.wav: .*full scale"):
            read_wave(path)


@pytest.mark.parametrize("rate", [23.976, 29.97, 59.94])
def test_videos_of_another_rate_are_refused(tmp_path: Path, rate: float) -> None:
    write_video(tmp_path / "a.avi", np.zeros((5, 96, 96), np.uint8), rate)
    with pytest.raises(MediaError, match=rf"a\.avi: has {rate:.2f} frames a second"):
        read_crops(tmp_path / "a.avi")


def test_names_in_another_unicode_form_are_found(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    soundfile.write(tmp_path / f"{decomposed}.wav", np.ones(640), 16000, subtype="PCM_16")
    np.save(tmp_path / f"{decomposed}.npy", np.zeros((2, 4, 4), np.uint8))
    assert len(read_wave(tmp_path / f"{composed}.wav")) == 640
    assert read_crops(tmp_path / f"{composed}.npy").shape == (2, 4, 4)


def test_missing_and_broken_waves(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no wave")
    for name in ("missing.wav", "broken.wav"):
        with pytest.raises(MediaError, match=f"{name}: cannot be read as audio"):
            read_wave(tmp_path / name)


def test_video_and_array_of_the_same_images_are_equal(write_clip) -> None:
    video, array = write_clip("é: 1"), write_clip("b", video=".npy")
    frames = read_crops(video.video)
    assert frames.shape == (10, 96, 96)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, read_crops(array.video))


def test_arrays_are_memory_mapped(write_clip) -> None:
    assert isinstance(read_crops(write_clip("a", video=".npy").video), np.memmap)


def test_missing_and_broken_videos(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"broken\.mp4: cannot be opened as video \(no decoder"):
        read_crops(tmp_path / "broken.mp4")
    with pytest.raises(MediaError, match=r"missing\.mp4: cannot be opened as video \(there is no such file"):
        read_crops(tmp_path / "missing.mp4")
    with pytest.raises(MediaError, match=r"missing\.npy: "):
        read_crops(tmp_path / "missing.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 96, 96), np.float32), "is float32 of shape"),
        (np.zeros((96, 96), np.uint8), r"is uint8 of shape \(96, 96\)"),
        (np.zeros((0, 96, 96), np.uint8), "holds no video frames"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(MediaError, match=message):
        read_crops(tmp_path / "a.npy")


def test_pickled_arrays_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(MediaError, match=r"a\.npy: "):
        read_crops(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "read"),
    [("a.wav", read_wave), ("a.npy", read_crops), ("a.mp4", read_crops), ("a.tsv", read_manifest)],
)
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DataError, match=rf"{re.escape(name)}: .*git lfs pull"):
        read(tmp_path / name)


def test_real_clip(shared_data: Path) -> None:
    assert read_crops(shared_data / "grid" / "bbaf2n.mpg").shape == (75, 288, 360)
