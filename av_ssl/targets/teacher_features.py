"""A speech teacher as a source of features for shards on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import FRAME_RATE, read_wave
from av_ssl.data.waveform import frame_waveform
from av_ssl.errors import MediaError
from av_ssl.targets.feature_shards import one_thread
from av_ssl.targets.frame_features import device_of
from av_ssl.targets.load_teacher import load_teacher, weights_digest
from av_ssl.targets.speech_teacher import SpeechTeacher
from av_ssl.targets.teacher_spec import TeacherSpec

TIMED_CLIPS = 3


class TeacherFeatures:
    """Targets of single clips, so that they do not depend on how the work is divided.

    Args:
        teacher: on its device.
        weights: digest of its checkpoint.
    """

    def __init__(self, teacher: SpeechTeacher, weights: str) -> None:
        self.teacher = teacher
        self.weights = weights
        self.dim = teacher.dim

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Targets `[r T - missing, D]` of a clip's T video frames; raises MediaError when it cannot be read.

        T is the manifest's, and the waveform is cut or filled with silence to 640 T samples, as training does
        for teachers that run online.
        """
        assert clip.audio is not None
        wave = frame_waveform(read_wave(clip.audio), clip.frames)
        count = len(wave) * self.teacher.per_frame - self.teacher.missing
        if count <= 0:
            raise MediaError(f"{clip.audio}: has {clip.frames} video frames in the manifest, too few")
        samples = torch.from_numpy(wave.reshape(1, -1)).to(next(self.teacher.model.parameters()).device)
        return self.teacher(samples, [len(wave)])[0, :count].cpu().numpy()


@dataclass(frozen=True)
class TeacherSource:
    """Which teacher, where it runs and in which precision.

    Args:
        teacher: checkpoint, layers, normalisation.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
        precision: a dtype of torch by name.
    """

    teacher: TeacherSpec
    device: str = "cpu"
    precision: str = "float32"

    def open(self, rank: int = 0) -> TeacherFeatures:
        """The teacher, loaded once a process; raises DataError when it cannot be loaded."""
        return _open(self.teacher, device_of(self.device, rank), self.precision)

    def settings(self) -> dict[str, Any]:
        """What decides the targets, and their sizes; the checkpoint counts by its content."""
        features = _open(self.teacher, "cpu", "float32")
        made = features.teacher
        return {
            "teacher": self.teacher.resolved(made.depth).settings(),
            "weights": features.weights,
            "precision": self.precision,
            "dim": made.dim,
            "per_frame": made.per_frame,
            "missing": made.missing,
        }


@lru_cache(maxsize=1)
def _open(spec: TeacherSpec, device: str, precision: str) -> TeacherFeatures:
    teacher = load_teacher(spec)
    weights = weights_digest(teacher.model)
    return TeacherFeatures(teacher.to(device, getattr(torch, precision)), weights)


class Speed(NamedTuple):
    """Of a teacher on this machine."""

    seconds: float
    """That one worker takes for a second of audio."""
    workers: int
    """That the machine serves at once: its GPUs, or cores; more take turns."""


def speed_on(job: tuple[TeacherSource, Sequence[Clip]]) -> Speed:
    """How fast the teacher is, measured on the first few of these clips that can be read, behind one more."""
    source, clips = job
    features = source.open()
    times: list[tuple[float, int]] = []
    problem = "there is none"
    with one_thread():  # as shards are made
        for clip in clips:
            start = perf_counter()
            try:
                features.of(clip)
            except MediaError as error:
                problem = str(error)
                continue
            times.append((perf_counter() - start, clip.frames))
            if len(times) > TIMED_CLIPS:
                break
    if not times:
        raise MediaError(f"none of {len(clips)} clips can be read: {problem}")
    timed = times[1:] or times
    seconds, frames = (sum(column) for column in zip(*timed, strict=True))
    workers = torch.cuda.device_count() if source.device == "cuda" else os.cpu_count() or 1
    return Speed(seconds * FRAME_RATE / frames, workers)
