"""Speech of other people as noise: clips of the training list, long ones cut short."""

from __future__ import annotations

import random
from pathlib import Path

from av_ssl.media.audio import SAMPLE_RATE, plain_wav_length, read_audio
from av_ssl.media.babble import Speakers
from av_ssl.media.noise_files import Cutting, Existing

LONGEST = 20.0  # seconds of a clip that are used


def speech_jobs(speakers: Speakers, hours: float, folder: Path, seed: int) -> list[Existing | Cutting]:
    """Random clips that last `hours` together; what is not plain wav of at most 20 s is cut into `folder`."""
    paths = sorted(path for files in speakers.files.values() for path in files)
    random.Random(seed).shuffle(paths)
    jobs: list[Existing | Cutting] = []
    missing = hours * 3600
    for path in paths:
        if missing <= 0:
            break
        length = plain_wav_length(path)
        seconds = (len(read_audio(path)) if length is None else length) / SAMPLE_RATE
        if length is None or seconds > LONGEST:
            jobs.append(Cutting(path, folder / f"{len(jobs):05d}", LONGEST, number=1))
        else:
            jobs.append(Existing(path))
        missing -= min(seconds, LONGEST)
    return jobs
