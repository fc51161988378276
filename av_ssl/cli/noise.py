"""``av-ssl data noise`` and ``av-ssl data musan``: noise lists of a data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import available_cores, positive
from av_ssl.corpora.musan import find_recordings
from av_ssl.io import ProgressBar
from av_ssl.media.noise_files import Lists, make_babble_lists, make_musan_lists, make_own_lists

SECONDS = 10.0  # default length of a babble recording


def add_noise_arguments(parser: argparse.ArgumentParser) -> None:
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


def run_noise(args: argparse.Namespace) -> int:
    """Write OUT/noise."""
    seconds = SECONDS if args.minutes is None else args.minutes * 60 / args.number
    with ProgressBar("recording") as bar:
        if args.folder:
            lists = make_own_lists(args.folder, args.out, args.seed, bar.update)
        else:
            lists = make_babble_lists(
                args.out, args.babble_speakers, args.number, seconds, args.seed, bar.update
            )
    _print(args.out / "noise", lists)
    return 0


def add_musan_arguments(parser: argparse.ArgumentParser) -> None:
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


def run_musan(args: argparse.Namespace) -> int:
    """Write OUT/musan."""
    recordings = find_recordings(args.source)
    with ProgressBar("recording") as bar:
        kinds = make_musan_lists(
            recordings,
            args.out,
            args.babble_speakers,
            args.babble_number,
            args.speech_hours,
            args.lines,
            args.seed,
            args.workers,
            bar.update,
        )
    for kind, lists in kinds.items():
        _print(args.out / "musan" / kind, lists)
    return 0


def _print(folder: Path, lists: Lists) -> None:
    for split, paths in lists.items():
        print(f"{folder / split}.tsv: {len(paths)} recordings")
