"""Babble: several voices talking at once, mixed from the recordings of many speakers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.media.audio import Samples, plain_wav_length, read_audio, read_plain_wav

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
