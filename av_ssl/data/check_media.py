"""Whether the files of a clip are what its manifest says, read as training reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import FRAME_RATE, read_crops, read_wave
from av_ssl.errors import DataError


@dataclass(frozen=True)
class MediaCheck:
    """One clip to be read, from a line of `manifest`; training cuts pictures of `crop_size` pixels."""

    manifest: Path
    clip: Clip
    crop_size: int = 88


def check_clip(job: MediaCheck) -> list[str]:
    """Problems of the clip's files, each naming manifest, line, file and mend."""
    place = f"{job.manifest}, line {job.clip.line}"
    problems = []
    for stream in (_check_video, _check_audio):
        try:
            problems += [f"{place}: {problem}" for problem in stream(job)]
        except DataError as error:
            problems.append(f"{place}: {error}")
    return problems


def check_noise(path: Path) -> list[str]:
    """Problems of a noise recording."""
    try:
        read_wave(path)
    except DataError as error:
        return [str(error)]
    return []


def _check_video(job: MediaCheck) -> Iterator[str]:
    clip = job.clip
    if clip.video is None:
        return
    frames, height, width = read_crops(clip.video).shape
    if frames != clip.frames:
        yield f"{clip.video}: holds {frames} frames, the manifest says {clip.frames}; write {frames} there"
    if min(height, width) < job.crop_size:
        yield (
            f"{clip.video}: pictures of {width}x{height} pixels are smaller than the {job.crop_size} that "
            "training cuts; crop again, or lower task.image_crop_size"
        )
    rate = FRAME_RATE if clip.video.suffix == ".npy" else _frame_rate(clip.video)
    if abs(rate - FRAME_RATE) > 0.05:
        yield f"{clip.video}: has {rate:.2f} frames a second, training takes it for 25; crop the video again"


def _frame_rate(path: Path) -> float:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        return float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()


def _check_audio(job: MediaCheck) -> Iterator[str]:
    clip = job.clip
    if clip.audio is None:
        return
    samples = len(read_wave(clip.audio))
    if samples != clip.samples:
        yield (
            f"{clip.audio}: holds {samples} samples, the manifest says {clip.samples}; write {samples} there"
        )
