"""`av-ssl average OUT CHECKPOINT...`: a model of mean weights, e.g. of the last ten epochs.

fairseq has a script for this in its repository, which is not part of the installed package and reads
checkpoints by unpickling them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.checkpoints.average import average_checkpoints, last_checkpoints
from av_ssl.checkpoints.files import write_stored
from av_ssl.cli.arguments import positive
from av_ssl.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="FILE.pt (fairseq) or FILE.safetensors; without optimizer"
    )
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", type=Path, nargs="+",
        help="checkpoints in the order of training, or with --epochs or --updates their folder",
    )  # fmt: skip
    last = parser.add_mutually_exclusive_group()
    last.add_argument("--epochs", metavar="N", type=positive, help="the last N of checkpoint1.pt, ...")
    last.add_argument("--updates", metavar="N", type=positive, help="the last N of checkpoint_1_500.pt, ...")


def run(args: argparse.Namespace) -> int:
    """Average; 0 when OUT is written."""
    paths = selected(args)
    if args.out.resolve() in [path.resolve() for path in paths]:
        raise DataError(f"{args.out}: is one of the checkpoints to be averaged; name another")
    written = write_stored(average_checkpoints(paths), args.out)
    print(f"{', '.join(map(str, written))}: mean of {', '.join(path.name for path in paths)}")
    return 0


def selected(args: argparse.Namespace) -> list[Path]:
    """The files that the arguments name, in the order of training."""
    number = args.epochs or args.updates
    if number is None:
        return list(args.checkpoints)
    if len(args.checkpoints) != 1 or not args.checkpoints[0].is_dir():
        raise DataError(f"{args.checkpoints[0]}: with --epochs or --updates, name one folder of checkpoints")
    return last_checkpoints(args.checkpoints[0], number, updates=args.updates is not None)
