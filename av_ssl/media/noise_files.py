"""Noise recordings made from others: babble of many voices, and long recordings cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from av_ssl.errors import MediaError
from av_ssl.media.audio import SAMPLE_RATE, read_audio, read_plain_wav, write_audio
from av_ssl.media.babble import Speakers, mix_babble
from av_ssl.media.worker_pool import Crash, run_isolated


class NoiseJob(Protocol):
    """Something that gives noise recordings."""

    def make(self) -> list[Path]:
        """Write what is to be written; 16 kHz mono wav files."""


@dataclass(frozen=True)
class Existing:
    """A recording that serves as it is."""

    path: Path

    def make(self) -> list[Path]:
        """Its path."""
        return [self.path]


@dataclass(frozen=True)
class Mixing:
    """Babble: `length` samples at 16 kHz of `voices` people."""

    path: Path
    speakers: Speakers
    voices: int
    length: int
    seed: tuple[int, ...]

    def make(self) -> list[Path]:
        """Mix and write it."""
        write_audio(self.path, mix_babble(self.speakers, self.voices, self.length, self.seed))
        return [self.path]


@dataclass(frozen=True)
class Cutting:
    """One recording to be cut into pieces STEM_00.wav, STEM_01.wav, ... of `seconds`.

    A piece shorter than `least` seconds is left out. At most `number` pieces are made; None is no limit.
    """

    source: Path
    stem: Path
    seconds: float
    least: float = 0.0
    number: int | None = None

    def make(self) -> list[Path]:
        """Write the pieces, whatever the format of the source."""
        samples = read_plain_wav(self.source)
        if samples is None:
            samples = read_audio(self.source)
        size = round(self.seconds * SAMPLE_RATE)
        paths: list[Path] = []
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            if len(paths) == self.number or len(piece) < self.least * SAMPLE_RATE:
                break
            paths.append(self.stem.with_name(f"{self.stem.name}_{len(paths):02d}.wav"))
            write_audio(paths[-1], piece)
        return paths


def babble_jobs(
    parts: Mapping[str, Speakers],
    folder: Path,
    counts: Mapping[str, int],
    voices: int,
    length: int,
    seed: int,
) -> dict[str, list[Mixing]]:
    """`counts[split]` recordings FOLDER/SPLIT/NNNNN.wav of the speakers of each split."""
    return {
        split: [
            Mixing(folder / split / f"{number:05d}.wav", speakers, voices, length, (seed, index, number))
            for number in range(counts[split])
        ]
        for index, (split, speakers) in enumerate(parts.items())
    }


def make_all(
    jobs: Sequence[NoiseJob], workers: int, progress: Callable[[int, int], None]
) -> list[list[Path]]:
    """Recordings of every job, in the order of the jobs; `progress(done, total)` is called after each.

    Raises MediaError when a recording cannot be read or written.
    """
    results: dict[int, list[Path]] = {}
    outcomes: Iterable[tuple[tuple[int, NoiseJob], list[Path] | Crash]]
    if workers == 1:
        outcomes = ((numbered, _make(numbered)) for numbered in enumerate(jobs))
    else:
        outcomes = run_isolated(_make, list(enumerate(jobs)), min(workers, len(jobs)))
    for (number, _), outcome in outcomes:
        if isinstance(outcome, Crash):
            raise MediaError(outcome.message)
        results[number] = outcome
        progress(len(results), len(jobs))
    return [results[number] for number in range(len(jobs))]


def _make(numbered: tuple[int, NoiseJob]) -> list[Path]:
    return numbered[1].make()
