"""Babble: several voices talking at once, mixed from the training clips."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from av_ssl.errors import DataError
from av_ssl.media.audio import Samples, read_audio, read_plain_wav

LOUDNESS = 1000.0  # root mean square of each voice, int16 units: equal voices, headroom for the sum
PEAK = 32767


@dataclass(frozen=True)
class Speakers:
    """Audio files of each speaker; the folder that holds a clip counts as its speaker."""

    files: dict[str, list[Path]]

    @classmethod
    def of_manifest(cls, manifest: Path) -> Speakers:
        """Speakers of a clip list; where all clips lie in one folder, each clip is a speaker of its own."""
        if not manifest.is_file():
            raise DataError(f"{manifest}: does not exist; run av-ssl manifest first")
        root, *lines = manifest.read_text(encoding="utf-8").rstrip("\n").split("\n")
        by_folder: dict[str, list[Path]] = {}
        for number, line in enumerate(lines, start=2):
            columns = line.split("\t")
            if len(columns) != 5:
                raise DataError(
                    f"{manifest}, line {number}: has {len(columns)} columns, not 5; make the list again"
                )
            folder = columns[0].rpartition("/")[0].rpartition("/")[2]
            by_folder.setdefault(folder, []).append(Path(root, columns[2]))
        if len(by_folder) == 1:
            files = next(iter(by_folder.values()))
            by_folder = {str(path): [path] for path in files}
        return cls(dict(sorted(by_folder.items())))


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


@lru_cache(maxsize=256)  # short clips are read many times over
def _read(path: Path) -> Samples:
    samples = read_plain_wav(path)
    return read_audio(path) if samples is None else samples


def _voice(files: Sequence[Path], length: int, draw: random.Random) -> np.ndarray:
    """Utterances of one speaker in random order, from a random place, until `length` samples are full."""
    pieces: list[np.ndarray] = []
    missing = length
    while missing > 0:
        samples = _read(draw.choice(files)).astype(np.float64)
        if not samples.any():  # silence would never reach the loudness; it still takes its time
            samples = np.zeros(max(1, len(samples)))
        start = 0 if pieces else draw.randrange(len(samples))
        pieces.append(samples[start:][:missing])
        missing -= len(pieces[-1])
    voice = np.concatenate(pieces)
    return voice * (LOUDNESS / max(float(np.sqrt(np.mean(voice**2))), 1.0))
