"""Babble: several voices talking at once, mixed from the recordings of many speakers.

Noise recordings made from others: babble of many voices, and long recordings cut into pieces.

Speech of other people as noise: clips of the training list, long ones cut short.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError, MediaError
from av_ssl.jobs import Crash, run_isolated
from av_ssl.media.audio import SAMPLE_RATE, Samples, plain_wav_length, read_audio, read_plain_wav, write_audio

LOUDNESS = 1000.0  # root mean square of each voice, int16 units: equal voices, headroom for the sum
PEAK = 32767


@dataclass(frozen=True)
class Speakers:
    """Audio files of each speaker."""

    files: dict[str, list[Path]]

    @classmethod
    def of_manifest(cls, manifest: Path) -> Speakers:
        """Speakers of a clip list, by its `.spk` file, one speaker a line.

        Without that file the folder that holds a clip counts as its speaker; where all clips lie in one
        folder, each clip is a speaker of its own. Raises DataError when the two files do not fit.
        """
        if not manifest.is_file():
            raise DataError(f"{manifest}: does not exist; run av-ssl manifest first")
        root, *lines = manifest.read_text(encoding="utf-8").rstrip("\n").split("\n")
        speakers = _read_speakers(manifest.with_suffix(".spk"), len(lines))
        by_speaker: dict[str, list[Path]] = {}
        for number, line in enumerate(lines, start=2):
            columns = line.split("\t")
            if len(columns) != 5:
                raise DataError(
                    f"{manifest}, line {number}: has {len(columns)} columns, not 5; make the list again"
                )
            folder = columns[0].rpartition("/")[0].rpartition("/")[2]
            speaker = speakers[number - 2] if speakers else folder
            by_speaker.setdefault(speaker, []).append(Path(root, columns[2]))
        if len(by_speaker) == 1 and not speakers:
            files = next(iter(by_speaker.values()))
            by_speaker = {str(path): [path] for path in files}
        return cls(dict(sorted(by_speaker.items())))


def part_of_each_split(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """`names` divided at random into 80 % train, 10 % valid, 10 % test, each with at least one.

    Raises DataError for fewer than three names.
    """
    if len(names) < 3:
        raise DataError(f"{len(names)} recordings cannot be divided into three lists; at least 3 are needed")
    shuffled = list(names)
    random.Random(seed).shuffle(shuffled)
    tenth = max(1, len(names) // 10)
    valid, test, train = shuffled[:tenth], shuffled[tenth : 2 * tenth], shuffled[2 * tenth :]
    return {"train": sorted(train), "valid": sorted(valid), "test": sorted(test)}


def split_speakers(speakers: Speakers, seed: int) -> tuple[dict[str, Speakers], bool]:
    """Speakers of each split, none in two; with fewer than three, all of them in every split, and True."""
    if len(speakers.files) < 3:
        return dict.fromkeys(("train", "valid", "test"), speakers), True
    parts = part_of_each_split(list(speakers.files), seed)
    return {
        split: Speakers({name: speakers.files[name] for name in names}) for split, names in parts.items()
    }, False


def mix_babble(speakers: Speakers, voices: int, length: int, seed: Sequence[int]) -> Samples:
    """`length` samples (int16, 16 kHz) of `voices` people at once; all differ while there are enough."""
    draw = random.Random(repr(tuple(seed)))
    names = draw.sample(list(speakers.files), min(voices, len(speakers.files)))
    names += draw.choices(list(speakers.files), k=voices - len(names))
    total = np.mean([_voice(speakers.files[name], length, draw) for name in names], axis=0)
    peak = float(np.abs(total).max())
    return (total * min(1.0, PEAK / max(peak, 1.0))).astype(np.int16)


def _read_speakers(path: Path, clips: int) -> list[str]:
    """Speaker of each clip; empty without the file."""
    if not path.is_file():
        return []
    speakers = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(speakers) != clips:
        raise DataError(
            f"{path}: has {len(speakers)} lines, but the list beside it {clips} clips; "
            "run av-ssl manifest again"
        )
    return speakers


@lru_cache(maxsize=16)  # recordings of other formats are decoded as a whole
def _decoded(path: Path) -> Samples:
    return read_audio(path)


@lru_cache(maxsize=65536)
def _length(path: Path) -> int:
    length = plain_wav_length(path)
    return len(_decoded(path)) if length is None else length


def _part(path: Path, start: int, length: int) -> Samples:
    samples = read_plain_wav(path, start, length)
    return _decoded(path)[start:][:length] if samples is None else samples


def _voice(files: Sequence[Path], wanted: int, draw: random.Random) -> NDArray[np.float64]:
    """Utterances of one speaker in random order, from a random place, until `wanted` samples are full."""
    pieces: list[Samples] = []
    missing = wanted
    while missing > 0:
        path = draw.choice(files)
        length = _length(path)
        if not length:  # an empty recording stands for a sample of silence, so that the loop ends
            pieces.append(np.zeros(1, np.int16))
        else:
            start = 0 if pieces else draw.randrange(length)
            pieces.append(_part(path, start, missing))
        missing -= len(pieces[-1])
    voice = np.concatenate(pieces).astype(np.float64)
    # Silence stays silent.
    return voice * (LOUDNESS / max(float(np.sqrt(np.mean(voice**2))), 1.0))


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
