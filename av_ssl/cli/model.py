"""``av-ssl model``: convert and average checkpoints, and plan a training."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

from av_ssl.cli.arguments import check_paths, not_negative, positive
from av_ssl.errors import DataError

# What imports torch is imported where it is needed: --help and a wrong path are then fast.

ONNX = ".onnx"
FORMS = "FILE.pt (fairseq), FILE.safetensors (with FILE.json beside it)"


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help=f"{FORMS} or FOLDER")
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        help=f"{FORMS}, FILE.onnx (encoder and CTC head), or a FOLDER to share (with a model card)",
    )
    parser.add_argument(
        "--to",
        choices=("av_hubert",),
        help="av_hubert: a plain encoder, without teacher and predictors, which AV-HuBERT's code reads, too "
        "(default: the model as it is)",
    )
    parser.add_argument(
        "--license", metavar="NAME", help="in the model card of a FOLDER, such as mit (default: other)"
    )
    parser.add_argument(
        "--wer",
        action="append",
        type=error_rate,
        default=[],
        metavar="TEST=PERCENT",
        help="word error rate, for the model card of a FOLDER; may be repeated",
    )


def error_rate(text: str) -> tuple[str, float]:
    """``TEST=PERCENT``, for argparse."""
    test, _, percent = text.rpartition("=")
    value = float(percent)
    if not test or not 0 <= value < math.inf:
        raise ValueError(text)
    return test, value


def run_convert(args: argparse.Namespace) -> int:
    """Convert a model; print what was written."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    if args.out.resolve() == args.source.resolve():
        raise DataError(f"{args.out}: is the file to be converted; name another")
    to_folder = not args.out.suffix or args.out.is_dir() or args.out.suffix[1:].isdecimal()  # such as vsr-1.0
    if not to_folder and (args.license or args.wer):
        option = "--license" if args.license else "--wer"
        raise DataError(f"{option}: is for a model card, and {args.out} has none; name a FOLDER, or omit it")
    check_paths(args.source)
    refuse_existing(args.out)
    from av_ssl.checkpoints.files import read_stored, write_stored

    stored = read_stored(args.source)
    if args.to == "av_hubert":
        from av_ssl.sharing.av_hubert import as_av_hubert

        stored = as_av_hubert(stored)
    if to_folder:
        from av_ssl.sharing.folder import save_pretrained

        written = save_pretrained(stored, args.out, args.license or "other", dict(args.wer))
    elif args.out.suffix == ONNX:
        from av_ssl.sharing.onnx import export_onnx

        written = export_onnx(stored, args.out)
    else:
        written = write_stored(stored, args.out)
    parameters = sum(tensor.numel() for tensor in stored.tensors.values())
    print(
        f"{', '.join(map(str, written))}: {stored.model_cfg.get('_name')}, {len(stored.tensors)} tensors, "
        f"{parameters:,} values"
    )
    return 0


def refuse_existing(out: Path) -> None:
    """Raise DataError rather than write over a file, or a model in a folder: a training may need it."""
    from av_ssl.checkpoints.files import CONFIG, SAFETENSORS, WEIGHTS
    from av_ssl.sharing.folder import CARD

    in_folder = (out / name for name in (WEIGHTS, CONFIG, CARD))
    written = [out, *in_folder, *([out.with_suffix(".json")] if out.suffix == SAFETENSORS else [])]
    for path in written:
        if path.is_file():
            raise DataError(f"{path}: exists; name another file or folder, or delete it")


def add_average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="FILE.pt (fairseq) or FILE.safetensors; without optimizer"
    )
    parser.add_argument(
        "checkpoints",
        metavar="CHECKPOINT",
        type=Path,
        nargs="+",
        help="checkpoints in the order of training, or with --epochs or --updates their folder",
    )
    last = parser.add_mutually_exclusive_group()
    last.add_argument("--epochs", metavar="N", type=positive, help="the last N of checkpoint1.pt, ...")
    last.add_argument("--updates", metavar="N", type=positive, help="the last N of checkpoint_1_500.pt, ...")


def run_average(args: argparse.Namespace) -> int:
    """Average checkpoints; print what was written."""
    check_paths(*args.checkpoints)
    from av_ssl.checkpoints.average import average_checkpoints, last_checkpoints
    from av_ssl.checkpoints.files import write_stored

    paths, number = list(args.checkpoints), args.epochs or args.updates
    if number is not None:
        if len(paths) != 1 or not paths[0].is_dir():
            raise DataError(f"{paths[0]}: with --epochs or --updates, name one folder of checkpoints")
        paths = last_checkpoints(paths[0], number, updates=args.updates is not None)
    refuse_existing(args.out)
    written = write_stored(average_checkpoints(paths), args.out)
    print(f"{', '.join(map(str, written))}: mean of {', '.join(path.name for path in paths)}")
    return 0


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with train.tsv")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of a recipe")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="as for fairseq-hydra-train, e.g. dataset.max_tokens=1000",
    )
    parser.add_argument(
        "--measure",
        metavar="N",
        type=not_negative,
        default=2,
        help="time N training steps on this machine; 0: no hours and no memory (default: 2)",
    )


def run_plan(args: argparse.Namespace) -> int:
    """Print the plan, a quantity a line."""
    check_paths(args.data, args.config)
    from av_ssl.analysis.plan import plan_training

    for name, value in plan_training(args.config, args.data, args.overrides, args.measure):
        print(f"{name:28}{value}")
    return 0
