"""`av-ssl demo [MODEL...]`: a page in the browser that recognises recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import positive


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        type=Path,
        nargs="*",
        help="fine-tuned recognisers, or the folder of a finished make demo (default: out/demo)",
    )
    parser.add_argument("--port", metavar="N", type=positive, help="(default: the first free one from 7860)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if there is one)"
    )


def run_demo(args: argparse.Namespace) -> int:
    """Show the page until Ctrl-C."""
    from av_ssl.demo import serve  # imports torch, which --help does not need

    serve(args.models, args.port, args.device)
    return 0
