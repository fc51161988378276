"""`av-ssl convert IN OUT`: between fairseq's checkpoints and safetensors; a fused encoder to AV-HuBERT's."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from av_ssl.checkpoints.files import read_stored, write_stored
from av_ssl.errors import DataError
from av_ssl.export import as_av_hubert

FORMS = "FILE.pt (fairseq) or FILE.safetensors (with FILE.json beside it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="IN", type=Path, help=FORMS)
    parser.add_argument("out", metavar="OUT", type=Path, help=f"{FORMS}; the optimizer is left out")
    parser.add_argument(
        "--to",
        choices=("av_hubert",),
        help="what the model becomes: av_hubert, a plain encoder that AV-HuBERT's code reads too, without "
        "teacher and predictors (default: the model as it is)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; 0 when OUT is written."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    if args.out.resolve() == args.source.resolve():
        raise DataError(f"{args.out}: is the file to be converted; name another")
    stored = read_stored(args.source)
    if args.to == "av_hubert":
        stored = as_av_hubert(stored)
    written = write_stored(stored, args.out)
    parameters = sum(tensor.numel() for tensor in stored.tensors.values())
    print(
        f"{', '.join(map(str, written))}: {stored.model_cfg.get('_name')}, {len(stored.tensors)} tensors, "
        f"{parameters:,} values"
    )
    return 0
