"""Options that all comparisons share, and the command line that their results record."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path


def evidence_parser(about: str, methods: Sequence[str], folder: str) -> argparse.ArgumentParser:
    """A parser of --quick, --seeds, --methods and --out.

    Args:
        about: the script's docstring.
        methods: names that can be chosen.
        folder: of out/, where results lie by default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, proves nothing"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument(
        "--methods", nargs="+", choices=methods, default=list(methods), metavar="METHOD",
        help=f"those to run, of {', '.join(methods)} (default: all); the tables have all that is finished",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help=f"output folder (default: out/{folder} or -quick here)")
    return parser


def recorded_command(script: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """What makes these results again; where they lie, and how many jobs run at once, does not matter.

    Args:
        script: its file in examples/toy.
    """
    words = ["python", f"examples/toy/{script}", *(["--quick"] if args.quick else [])]
    words += ["--seeds", *map(str, args.seeds)]
    if args.methods != parser.get_default("methods"):
        words += ["--methods", *args.methods]
    return shlex.join(words)
