"""Arguments of the commands that run a classifier over clips."""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.data.noise import NoiseMixer, parse_snr


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare CHECKPOINT, MANIFEST, --device, --workers, --noise and --snr."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="of an av_classifier or a lupi_student"
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="the clips, e.g. DATA/test.tsv")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that read clips (default: 0, none of their own)"
    )
    parser.add_argument(
        "--noise", metavar="LIST", type=Path, help="add noise from the files that LIST names to every clip"
    )
    parser.add_argument("--snr", default="0", help="its signal-to-noise ratio in dB (default: 0)")


def noise_of(args: argparse.Namespace) -> NoiseMixer | None:
    """The noise that every clip gets, the same in every run; raises DataError when it cannot be."""
    return None if args.noise is None else NoiseMixer(args.noise, probability=1.0, snr=parse_snr(args.snr))
