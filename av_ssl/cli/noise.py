"""`av-ssl noise OUT`: noise lists, of babble mixed from the training clips or of the user's recordings.

A list has one absolute path of a 16 kHz mono wav a line, AV-HuBERT's format. The three lists share no speaker
and no file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import positive
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, write_atomically
from av_ssl.layout import SPLITS
from av_ssl.media.audio import SAMPLE_RATE, read_audio, read_plain_wav, write_audio
from av_ssl.media.corpus import find_audio
from av_ssl.media.noise_files import Speakers, babble_jobs, make_all, part_of_each_split, split_speakers

SECONDS = 10.0  # of a babble recording unless told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder with train.tsv; OUT/noise is written")
    parser.add_argument(
        "--babble-speakers", type=positive, default=6, help="voices in a recording (default: 6)"
    )
    parser.add_argument(
        "--number", type=positive, default=100, help="recordings, 80/10/10 over the lists (default: 100)"
    )
    parser.add_argument(
        "--minutes", type=float, help="length of all recordings together (default: 10 s each)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--from",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="list the recordings below DIR instead of babble",
    )


def run(args: argparse.Namespace) -> int:
    """Write OUT/noise."""
    noise = args.out / "noise"
    lists = _own_recordings(args, noise) if args.folder else _babble(args, noise)
    for split in SPLITS:
        text = "".join(f"{path}\n" for path in lists[split])
        write_atomically(noise / f"{split}.tsv", text.encode())
        print(f"{noise / split}.tsv: {len(lists[split])} recordings")
    return 0


def _own_recordings(args: argparse.Namespace, noise: Path) -> dict[str, list[Path]]:
    """The user's files; those that are not 16 kHz mono wav are converted into OUT/noise/own."""
    files = find_audio(args.folder)
    lists: dict[str, list[Path]] = {}
    done = 0
    with ProgressBar("file") as bar:
        for split, names in part_of_each_split(list(files), args.seed).items():
            lists[split] = []
            for name in names:
                path = files[name].absolute()
                if read_plain_wav(path) is None:
                    samples = read_audio(path)
                    path = (noise / "own" / f"{name}.wav").absolute()
                    write_audio(path, samples)
                lists[split].append(path)
                done += 1
                bar.update(done, len(files))
    return lists


def _babble(args: argparse.Namespace, noise: Path) -> dict[str, list[Path]]:
    seconds = SECONDS if args.minutes is None else args.minutes * 60 / args.number
    length = round(seconds * SAMPLE_RATE)
    if length < SAMPLE_RATE:
        raise DataError(
            f"--minutes {args.minutes} over {args.number} recordings: each must last at least 1 s"
        )
    speakers = Speakers.of_manifest(args.out / "train.tsv")
    parts, shared = split_speakers(speakers, args.seed)
    if shared:
        print(
            f"{args.out / 'train.tsv'}: too few clips for lists without common voices; all lists share them"
        )
    tenth = max(1, args.number // 10)
    counts = {"train": max(1, args.number - 2 * tenth), "valid": tenth, "test": tenth}
    folder = (noise / "babble").absolute()
    jobs = babble_jobs(parts, folder, counts, args.babble_speakers, length, args.seed)
    with ProgressBar("recording") as bar:
        make_all([job for split in SPLITS for job in jobs[split]], 1, bar.update)
    return {split: [job.path for job in jobs[split]] for split in SPLITS}
