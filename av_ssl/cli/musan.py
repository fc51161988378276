"""`av-ssl musan MUSAN OUT`: noise lists of the MUSAN corpus, as in robust AV-HuBERT (Shi et al., 2022).

OUT/musan/KIND/SPLIT.tsv has one absolute path of a 16 kHz mono wav a line. KIND is noise, music, babble,
speech (of OUT/train.tsv), or all, whose lists hold each of the others equally often. No recording and no
voice is in the lists of two splits.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from av_ssl.cli.arguments import available_cores, positive
from av_ssl.corpora.musan import MUSIC, NOISE, SPEECH, find_recordings
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, write_atomically
from av_ssl.layout import SPLITS
from av_ssl.media.audio import SAMPLE_RATE
from av_ssl.media.noise_files import (
    Cutting,
    NoiseJob,
    Speakers,
    babble_jobs,
    make_all,
    part_of_each_split,
    speech_jobs,
    split_speakers,
)

PIECE, SHORTEST = 10.0, 3.0  # seconds of a piece of music or noise
TENTH = 10  # validation and test lists are a tenth of the whole each
BABBLE, ALL = "babble", "all"

Lists = dict[str, list[Path]]
Jobs = Mapping[str, Sequence[NoiseJob]]  # by split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="MUSAN", type=Path, help="folder with music/, noise/ and speech/")
    parser.add_argument("out", metavar="OUT", type=Path, help="data folder; OUT/musan is written")
    parser.add_argument(
        "--babble-speakers", type=positive, default=30, help="voices in a babble recording (default: 30)"
    )
    parser.add_argument(
        "--babble-number", type=positive, default=10000, help="of recordings, 80/10/10 (default: 10000)"
    )
    parser.add_argument(
        "--speech-hours",
        type=float,
        default=62.0,
        help="of clips of OUT/train.tsv as noise, 80/10/10 (default: 62; 0: none)",
    )
    parser.add_argument(
        "--lines",
        type=positive,
        default=20000,
        help="of each kind in all/train.tsv, a tenth of it in the others (default: 20000)",
    )
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Write OUT/musan."""
    recordings = find_recordings(args.source)
    folder = (args.out / "musan").absolute()
    jobs: dict[str, Jobs] = {kind: _pieces(args, recordings[kind], folder / kind) for kind in (NOISE, MUSIC)}
    jobs[BABBLE] = _babble(args, recordings[SPEECH], folder / BABBLE)
    manifest = args.out / "train.tsv"
    if args.speech_hours and manifest.is_file():
        jobs[SPEECH] = _speech(args, manifest, folder / SPEECH)
    elif args.speech_hours:
        print(f"{manifest}: does not exist, so no speech noise is made; run av-ssl manifest first")
    kinds = _made(jobs, args.workers)
    draw = random.Random(args.seed)
    lines = {split: args.lines if split == "train" else max(1, args.lines // TENTH) for split in SPLITS}
    mixed = {
        split: [path for lists in kinds.values() for path in _exactly(lists[split], lines[split], draw)]
        for split in SPLITS
    }
    for kind, lists in {**kinds, ALL: mixed}.items():
        _write_lists(folder / kind, lists)
    return 0


def _pieces(args: argparse.Namespace, recordings: dict[str, Path], folder: Path) -> Jobs:
    """Pieces of the recordings of each split."""
    return {
        split: [Cutting(recordings[name], folder / "wav" / name, PIECE, SHORTEST) for name in names]
        for split, names in part_of_each_split(list(recordings), args.seed).items()
    }


def _babble(args: argparse.Namespace, recordings: dict[str, Path], folder: Path) -> Jobs:
    # MUSAN names no readers, so every recording counts as a speaker.
    parts, _ = split_speakers(Speakers({name: [path] for name, path in recordings.items()}), args.seed)
    tenth = max(1, args.babble_number // TENTH)
    counts = {"train": max(1, args.babble_number - 2 * tenth), "valid": tenth, "test": tenth}
    length = round(PIECE * SAMPLE_RATE)
    return babble_jobs(parts, folder / "wav", counts, args.babble_speakers, length, args.seed)


def _speech(args: argparse.Namespace, manifest: Path, folder: Path) -> Jobs:
    """Clips of the training list, each speaker in one split."""
    parts, shared = split_speakers(Speakers.of_manifest(manifest), args.seed)
    if shared:
        print(f"{manifest}: too few speakers for speech lists without common voices; all lists share them")
    shares = {"train": 1 - 2 / TENTH, "valid": 1 / TENTH, "test": 1 / TENTH}
    return {
        split: speech_jobs(parts[split], args.speech_hours * share, folder / "wav" / split, args.seed)
        for split, share in shares.items()
    }


def _made(jobs: dict[str, Jobs], workers: int) -> dict[str, Lists]:
    """Recordings of all jobs, by kind and split."""
    places = [(kind, split, job) for kind in jobs for split in SPLITS for job in jobs[kind][split]]
    with ProgressBar("recording") as bar:
        made = make_all([job for _, _, job in places], workers, bar.update)
    kinds: dict[str, Lists] = {kind: {split: [] for split in SPLITS} for kind in jobs}
    for (kind, split, _), paths in zip(places, made, strict=True):
        kinds[kind][split] += paths
    return kinds


def _exactly(paths: Sequence[Path], lines: int, draw: random.Random) -> list[Path]:
    """`paths` in random order, over and over, until there are `lines` of them."""
    shuffled = list(paths)
    draw.shuffle(shuffled)
    return list(itertools.islice(itertools.cycle(shuffled), lines))


def _write_lists(folder: Path, lists: Lists) -> None:
    for split in SPLITS:
        if not lists[split]:
            raise DataError(
                f"{folder / split}.tsv: would be empty; more recordings of {SHORTEST:g} s are needed"
            )
        write_atomically(folder / f"{split}.tsv", "".join(f"{path}\n" for path in lists[split]).encode())
        print(f"{folder / split}.tsv: {len(lists[split])} recordings")
