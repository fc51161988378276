"""Small clips on disk, as preprocessing leaves them, and noise for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from av_ssl.data.noise import NoiseMixer
from av_ssl.manifest import Clip

WriteClip = Callable[..., Clip]


def write_video(path: Path, frames: np.ndarray, rate: float = 25) -> None:
    """Losslessly, so that tests can compare frames `[T, H, W]` uint8."""
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), rate, frames.shape[:0:-1]
    )
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Writes a clip of `frames` random images (`video`: suffix) and of `samples` of noise."""

    def write(
        name: str, frames: int = 10, samples: int | None = None, video: str = ".avi", seed: int = 0
    ) -> Clip:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (frames, 96, 96), np.uint8)
        wave = rng.integers(-3000, 3000, frames * 640 if samples is None else samples).astype(np.int16)
        video_path, audio_path = tmp_path / f"{name}{video}", tmp_path / f"{name}.wav"
        if video == ".npy":
            np.save(video_path, images)
        else:
            write_video(video_path, images)
        soundfile.write(audio_path, wave, 16000, subtype="PCM_16")
        return Clip(name, video_path, audio_path, frames, len(wave), 2)

    return write


@pytest.fixture
def clips(write_clip: WriteClip) -> list[Clip]:
    return [write_clip(f"clip{k}", frames, seed=k, video=".npy") for k, frames in enumerate((12, 20, 20, 16))]


@pytest.fixture
def noise(tmp_path: Path) -> NoiseMixer:
    wave = np.random.default_rng(9).normal(0, 500, 20000).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", wave, 16000, subtype="PCM_16")
    return NoiseMixer([tmp_path / "noise.wav"], 0.5, (-5, 5), random_offset=True)
