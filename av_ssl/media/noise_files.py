"""Noise recordings and the lists that name them: babble, one's own recordings, and MUSAN.

A list, ``SPLIT.tsv``, has one absolute path of a 16 kHz mono wav a line, AV-HuBERT's format. No recording and
no speaker is in the lists of two splits, except where there are few speakers, see ``split_speakers``.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError, MediaError
from av_ssl.io import composed, read_text, wav_fault, write_atomically
from av_ssl.jobs import Crash, run_isolated
from av_ssl.layout import SAMPLE_RATE, SPEAKER, SPLITS
from av_ssl.manifest import check_streams, read_manifest
from av_ssl.media.audio import Samples, plain_wav_length, read_audio, read_plain_wav, write_audio
from av_ssl.media.sources import find_audio

logger = logging.getLogger(__name__)

LOUDNESS = 1000.0  # root mean square of each voice, int16 units: equal voices, headroom for the sum
PEAK = 32767
PIECE, SHORTEST = 10.0, 3.0  # seconds of a piece of MUSAN's music or noise
LONGEST = 20.0  # seconds of a clip that are used as speech noise
FEWEST_SPEAKERS = 10  # of a corpus whose speakers are divided over the splits
TENTH = 10  # validation and test lists are a tenth of the total each
MUSIC, NOISE, SPEECH = "music", "noise", "speech"
BABBLE, ALL = "babble", "all"

Speakers = Mapping[str, Sequence[Path]]
"""Audio files of each speaker."""
Lists = dict[str, list[Path]]
"""Recordings of each split."""
Job = Callable[[], list[Path]]
"""Writes recordings, 16 kHz mono wav, and returns their paths. Can be pickled."""
Key = TypeVar("Key", bound=Hashable)
Progress = Callable[[int, int], None]


def make_babble_lists(
    data: Path,
    voices: int = 6,
    number: int = 100,
    seconds: float = 10.0,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Lists:
    """Mix babble from the training clips of a data folder and write ``DATA/noise/SPLIT.tsv``.

    Args:
        data: folder with ``train.tsv``.
        voices: number of speakers in a recording.
        number: of recordings, 80/10/10 % over the lists.
        seconds: length of a recording, at least 1.
    """
    if seconds < 1:
        raise DataError(f"recordings of {seconds:.3g} s: each must last at least 1 s; raise --minutes")
    folder = (data / "noise").absolute()
    parts = split_speakers(speakers_of(data / "train.tsv"), seed)
    jobs = _babble(parts, folder / BABBLE, voices, number, round(seconds * SAMPLE_RATE), seed)
    return write_lists(folder, make_all(jobs, 1, progress))


def make_own_lists(
    recordings: Path, data: Path, seed: int = 0, progress: Progress = lambda done, total: None
) -> Lists:
    """Write ``DATA/noise/SPLIT.tsv`` for one's own recordings, 80/10/10 %.

    Files that are not 16 kHz mono wav are converted into ``DATA/noise/own``.
    """
    files = find_audio(recordings)
    folder = (data / "noise").absolute()
    jobs = {
        split: [partial(convert, files[name].absolute(), folder / "own" / f"{name}.wav") for name in names]
        for split, names in divide(list(files), seed).items()
    }
    return write_lists(folder, make_all(jobs, 1, progress))


def make_musan_lists(
    recordings: Mapping[str, Mapping[str, Path]],
    data: Path,
    voices: int = 30,
    number: int = 10000,
    speech_hours: float = 62.0,
    lines: int = 20000,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, Lists]:
    """Write ``DATA/musan/KIND/SPLIT.tsv`` as in robust AV-HuBERT (Shi et al., 2022).

    KIND is ``noise``, ``music``, ``babble``, ``speech`` (of ``DATA/train.tsv``), or ``all``, whose lists hold
    each of the others equally often.

    Args:
        recordings: MUSAN's by kind and id, as ``av_ssl.corpora.musan.find_recordings`` returns them.
        data: the data folder.
        voices: number of recordings of speech in a babble recording.
        number: of babble recordings, 80/10/10 %.
        speech_hours: hours of training clips as speech noise, 80/10/10 %; 0: none.
        lines: of each kind in ``all/train.tsv``, a tenth of it in the others.
    """
    folder = (data / "musan").absolute()
    jobs: dict[tuple[str, str], Sequence[Job]] = {}
    for kind in (NOISE, MUSIC):
        for split, names in divide(list(recordings[kind]), seed).items():
            stems = {name: folder / kind / "wav" / name for name in names}
            jobs[kind, split] = [
                partial(cut, recordings[kind][name], stem, PIECE, SHORTEST) for name, stem in stems.items()
            ]
    # MUSAN names no readers, so every recording counts as a speaker.
    readers = split_speakers({name: [path] for name, path in recordings[SPEECH].items()}, seed)
    babble = _babble(readers, folder / BABBLE / "wav", voices, number, round(PIECE * SAMPLE_RATE), seed)
    jobs |= {(BABBLE, split): mixing for split, mixing in babble.items()}
    manifest = data / "train.tsv"
    if speech_hours and manifest.is_file():
        for split, speakers in split_speakers(speakers_of(manifest), seed).items():
            hours = speech_hours * (1 - 2 / TENTH if split == "train" else 1 / TENTH)
            jobs[SPEECH, split] = speech_jobs(speakers, hours, folder / SPEECH / "wav" / split, seed)
    elif speech_hours:
        logger.warning(
            "%s: does not exist, so no speech noise is made; run av-ssl data manifest first", manifest
        )
    made = make_all(jobs, workers, progress)
    kinds = {
        kind: {split: made[kind, split] for split in SPLITS} for kind in dict.fromkeys(k for k, _ in jobs)
    }
    draw = random.Random(seed)
    counts = {split: lines if split == "train" else max(1, lines // TENTH) for split in SPLITS}
    mixed = {
        split: [path for lists in kinds.values() for path in _exactly(lists[split], counts[split], draw)]
        for split in SPLITS
    }
    return {kind: write_lists(folder / kind, lists) for kind, lists in {**kinds, ALL: mixed}.items()}


def write_lists(folder: Path, lists: Lists) -> Lists:
    """Write ``folder``/SPLIT.tsv; raises DataError when a list is empty."""
    for split in SPLITS:
        if not lists[split]:
            raise DataError(f"{folder / split}.tsv: is empty; more recordings of {SHORTEST:g} s are needed")
        write_atomically(folder / f"{split}.tsv", "".join(f"{path}\n" for path in lists[split]).encode())
    return lists


def _exactly(paths: Sequence[Path], lines: int, draw: random.Random) -> list[Path]:
    """The paths in random order, repeated until there are ``lines`` of them."""
    shuffled = list(paths)
    draw.shuffle(shuffled)
    return list(itertools.islice(itertools.cycle(shuffled), lines))


# -- speakers ------------------------------------------------------------------------------------------------


def speakers_of(manifest: Path) -> dict[str, list[Path]]:
    """Audio files of each speaker of a manifest, by its ``.spk`` file, one speaker a line.

    Without that file the folder of a clip's id counts as its speaker; where all clips have one folder, each
    clip is a speaker of its own.

    Raises:
        DataError: the two files do not match, or a clip has no audio.
    """
    clips = read_manifest(manifest)
    path = manifest.with_suffix(f".{SPEAKER}")
    names = [clip.id.rpartition("/")[0].rpartition("/")[2] for clip in clips]
    if path.is_file():
        lines = read_text(path, "run av-ssl data manifest again").rstrip("\n").split("\n")
        names = [composed(line.strip()) for line in lines]
        if len(names) != len(clips):
            counts = f"has {len(names)} lines, but {manifest.name} has {len(clips)} clips"
            raise DataError(f"{path}: {counts}; run av-ssl data manifest again")
    check_streams(manifest, clips, ["audio"], "fill in the column")
    by_speaker: dict[str, list[Path]] = {}
    for audio, name in zip((clip.audio for clip in clips if clip.audio), names, strict=True):
        by_speaker.setdefault(name, []).append(audio)
    if len(by_speaker) == 1 and not path.is_file():
        by_speaker = {str(file): [file] for files in by_speaker.values() for file in files}
    return dict(sorted(by_speaker.items()))


def divide(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Divide names, at least three, at random into 80 % train, 10 % valid, 10 % test."""
    if len(names) < 3:
        raise DataError(f"{len(names)} recordings cannot be divided into three lists; at least 3 are needed")
    shuffled = list(names)
    random.Random(seed).shuffle(shuffled)
    tenth = max(1, len(names) // TENTH)
    valid, test, train = shuffled[:tenth], shuffled[tenth : 2 * tenth], shuffled[2 * tenth :]
    return {"train": sorted(train), "valid": sorted(valid), "test": sorted(test)}


def split_speakers(speakers: Speakers, seed: int) -> dict[str, Speakers]:
    """Speakers of each split, none in two.

    Fewer than ten cannot be divided so: then each split has all voices, with a warning. Their recordings are
    different ones, unless a speaker has fewer than three.
    """
    if len(speakers) >= FEWEST_SPEAKERS:
        parts = divide(list(speakers), seed)
        return {split: {name: speakers[name] for name in names} for split, names in parts.items()}
    few = any(len(files) < len(SPLITS) for files in speakers.values())
    logger.warning(
        "fewer than %d speakers: the noise lists of all splits share their voices%s",
        FEWEST_SPEAKERS,
        " and recordings" if few else "",
    )
    if few:
        return dict.fromkeys(SPLITS, speakers)
    divided = {name: divide([str(file) for file in files], seed) for name, files in speakers.items()}
    return {
        split: {name: [Path(file) for file in parts[split]] for name, parts in divided.items()}
        for split in SPLITS
    }


# -- babble --------------------------------------------------------------------------------------------------


def _babble(
    parts: Mapping[str, Speakers], folder: Path, voices: int, number: int, length: int, seed: int
) -> dict[str, list[Job]]:
    """Jobs for ``number`` recordings ``folder``/SPLIT/NNNNN.wav, 80/10/10 %, from the speakers of a split."""
    tenth = max(1, number // TENTH)
    counts = {"train": max(1, number - 2 * tenth), "valid": tenth, "test": tenth}
    return {
        split: [
            partial(
                mix, folder / split / f"{place:05d}.wav", parts[split], voices, length, (seed, index, place)
            )
            for place in range(counts[split])
        ]
        for index, split in enumerate(SPLITS)
    }


def mix(path: Path, speakers: Speakers, voices: int, length: int, seed: Sequence[int]) -> list[Path]:
    """Write a recording of babble, see ``mix_babble``."""
    write_audio(path, mix_babble(speakers, voices, length, seed))
    return [path]


def mix_babble(speakers: Speakers, voices: int, length: int, seed: Sequence[int]) -> Samples:
    """``length`` samples of ``voices`` speakers, all different as long as there are enough."""
    draw = random.Random(repr(tuple(seed)))
    names = draw.sample(list(speakers), min(voices, len(speakers)))
    names += draw.choices(list(speakers), k=voices - len(names))
    total = np.mean([_voice(speakers[name], length, draw) for name in names], axis=0)
    peak = float(np.abs(total).max())
    return (total * min(1.0, PEAK / max(peak, 1.0))).astype(np.int16)


def _voice(files: Sequence[Path], wanted: int, draw: random.Random) -> NDArray[np.float64]:
    """Utterances of one speaker in random order, from a random position, ``wanted`` samples in all."""
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


# -- existing recordings -------------------------------------------------------------------------------------


def convert(source: Path, path: Path) -> list[Path]:
    """Use a recording as it is, or write it to ``path`` when it is not 16 kHz mono wav.

    Raises MediaError if it cannot be read, is truncated or holds no samples.
    """
    plain = read_plain_wav(source)
    if fault := None if plain is None else wav_fault(source):
        raise MediaError(f"{source}: {fault}")
    samples = read_audio(source) if plain is None else plain
    if not len(samples):
        raise MediaError(f"{source}: holds no samples; replace or remove the file")
    if plain is not None:
        return [source]
    write_audio(path, samples)
    return [path]


def cut(
    source: Path, stem: Path, seconds: float, shortest: float = 0.0, number: int | None = None
) -> list[Path]:
    """Cut a recording into pieces STEM_00.wav, STEM_01.wav, ...

    Args:
        source: the recording, in any format.
        stem: path of the pieces without number and suffix.
        seconds: length of a piece.
        shortest: a shorter piece is left out, seconds.
        number: of pieces at most; None is no limit.
    """
    samples = read_plain_wav(source)
    if samples is None:
        samples = read_audio(source)
    size = round(seconds * SAMPLE_RATE)
    paths: list[Path] = []
    for start in range(0, len(samples), size):
        piece = samples[start : start + size]
        if len(paths) == number or len(piece) < shortest * SAMPLE_RATE:
            break
        paths.append(stem.with_name(f"{stem.name}_{len(paths):02d}.wav"))
        write_audio(paths[-1], piece)
    return paths


def speech_jobs(speakers: Speakers, hours: float, folder: Path, seed: int) -> list[Job]:
    """Jobs for random clips of ``hours`` in all; all but plain wav of at most 20 s is cut into ``folder``."""
    paths = sorted(path for files in speakers.values() for path in files)
    random.Random(seed).shuffle(paths)
    jobs: list[Job] = []
    missing = hours * 3600
    for path in paths:
        if missing <= 0:
            break
        length = plain_wav_length(path)
        seconds = (len(read_audio(path)) if length is None else length) / SAMPLE_RATE
        if length is None or seconds > LONGEST:
            jobs.append(partial(cut, path, folder / f"{len(jobs):05d}", LONGEST, number=1))
        else:
            jobs.append(partial(convert, path, path))  # used as it is
        missing -= min(seconds, LONGEST)
    return jobs


# -- running jobs --------------------------------------------------------------------------------------------


def make_all(jobs: Mapping[Key, Sequence[Job]], workers: int, progress: Progress) -> dict[Key, list[Path]]:
    """Recordings of all jobs under the keys of the jobs, in their order; raises MediaError."""
    numbered = list(enumerate(job for group in jobs.values() for job in group))
    outcomes: Iterable[tuple[tuple[int, Job], list[Path] | Crash]]
    if workers == 1:
        outcomes = ((job, _make(job)) for job in numbered)
    else:
        outcomes = run_isolated(_make, numbered, min(workers, len(numbered)))
    results: dict[int, list[Path]] = {}
    for (number, _), outcome in outcomes:
        if isinstance(outcome, Crash):
            raise MediaError(outcome.message)
        results[number] = outcome
        progress(len(results), len(numbered))
    numbers = iter(range(len(numbered)))
    return {key: [path for _ in group for path in results[next(numbers)]] for key, group in jobs.items()}


def _make(numbered: tuple[int, Job]) -> list[Path]:
    return numbered[1]()
