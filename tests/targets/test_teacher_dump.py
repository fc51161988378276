"""How long a dump takes, from a few clips."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl.errors import DataError, MediaError
from av_ssl.jobs import Crash
from av_ssl.manifest import Clip
from av_ssl.targets import teacher_dump
from av_ssl.targets.speech_teacher import TeacherSpec
from av_ssl.targets.teacher_dump import hours_of_work, speed_on


class Features:
    """Of a teacher that fails on some clips."""

    dim = 1

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.tried: list[tuple[str, int]] = []

    def open(self) -> Features:
        return self

    device = "cpu"

    def of(self, clip: Clip) -> np.ndarray:
        self.tried.append((clip.id, torch.get_num_threads()))
        if clip.id in self.bad:
            raise MediaError(f"{clip.id}: is damaged")
        return np.zeros((1, 1), np.float32)


def clips(count: int) -> list[Clip]:
    return [Clip(str(number), None, Path("a.wav"), 50, 32000, number + 2) for number in range(count)]


def test_timed_in_one_thread_on_clips_that_can_be_read(monkeypatch):
    features, seconds = Features("0", "2"), itertools.count(0, 0.5)
    monkeypatch.setattr(teacher_dump, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(teacher_dump, "available_cores", lambda: 6)
    assert speed_on((features, clips(9))) == (0.25, 6)  # half a second for two of audio
    assert features.tried == [(str(number), 1) for number in range(6)]
    assert speed_on((Features(), clips(1)))[0] == 0.25
    with pytest.raises(MediaError, match="none of 2 clips can be read: 1: is damaged"):
        speed_on((Features("0", "1"), clips(2)))


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (8, 2), (2, 2)])
def test_workers_share_the_gpus(workers, at_once, monkeypatch):
    monkeypatch.setattr(teacher_dump, "run_isolated", lambda function, jobs, _: iter([(jobs[0], (0.5, 2))]))
    source = TeacherSpec("m", device="cuda")
    assert hours_of_work(source, clips(10), workers) == pytest.approx(10 / 3600 / at_once)


def test_a_teacher_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(
        teacher_dump, "run_isolated", lambda function, jobs, _: iter([(jobs[0], Crash("no memory"))])
    )
    with pytest.raises(DataError, match=r"teacher m: cannot be tried on a clip \(no memory\)"):
        hours_of_work(TeacherSpec("m"), clips(3), 2)
