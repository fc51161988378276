"""What dumping a teacher's targets takes, said before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import FRAME_RATE
from av_ssl.errors import DataError
from av_ssl.media.worker_pool import Crash, run_isolated
from av_ssl.targets.teacher_features import TeacherSource, speed_on

STORED_BYTES = 2  # float16
TRIED_CLIPS = 20


@dataclass(frozen=True)
class Estimate:
    """What is still to be done.

    Attributes:
        clips: that have no targets yet.
        audio_hours: that they last.
        stored_bytes: that their targets take.
        free_bytes: on the disk.
    """

    clips: int
    audio_hours: float
    stored_bytes: int
    free_bytes: int

    def check(self, out: Path) -> None:
        """Raise DataError when the disk is too small."""
        if self.stored_bytes > self.free_bytes:
            raise DataError(
                f"{out}: targets take {self.stored_bytes / 1e9:.1f} GB, and "
                f"{self.free_bytes / 1e9:.1f} GB are free; make room, or let the teacher run in training "
                "(--no-dump)"
            )


def estimate(clips: Sequence[Clip], settings: Mapping[str, Any], out: Path) -> Estimate:
    """Of clips without targets, for a teacher of these settings (see `TeacherSource.settings`)."""
    frames = sum(clip.frames for clip in clips)
    targets = frames * settings["per_frame"] - len(clips) * settings["missing"]
    return Estimate(
        len(clips),
        frames / FRAME_RATE / 3600,
        targets * settings["dim"] * STORED_BYTES,
        shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free,
    )


def hours_of_work(source: TeacherSource, clips: Sequence[Clip], workers: int) -> float:
    """Time that so many workers of this machine need for the clips, tried on some of middling length.

    Raises DataError when the teacher fails on them, or none of them can be read.
    """
    middling = sorted(clips, key=lambda clip: clip.frames)[len(clips) // 2 :][:TRIED_CLIPS]
    # In a process of its own: workers could not use a GPU that this one has begun to use.
    _, speed = next(run_isolated(speed_on, [(source, middling)], 1))
    if isinstance(speed, Crash):
        raise DataError(f"teacher {source.teacher.model}: cannot be tried on a clip ({speed.message})")
    at_once = min(workers, len(clips), speed.workers)
    return speed.seconds * sum(clip.frames for clip in clips) / FRAME_RATE / 3600 / at_once
