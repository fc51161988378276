"""`av-ssl crop IN OUT`: every video below IN to a mouth crop and a wav in OUT."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from av_ssl.cli.arguments import available_cores, positive
from av_ssl.cli.progress import ProgressBar
from av_ssl.media.alignment import CROP_SHAPES
from av_ssl.media.crop_folder import crop_folder
from av_ssl.media.crop_report import write_report
from av_ssl.media.cropping import CropSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", metavar="IN", type=Path, help="folder with videos, searched with its subfolders"
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder for video/, audio/, clips.tsv, report.json"
    )
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )
    parser.add_argument("--size", type=_size, default=96, help="side of the crops in pixels (default: 96)")
    parser.add_argument("--region", choices=sorted(CROP_SHAPES), default="mouth", help="(default: mouth)")
    parser.add_argument(
        "--stride",
        type=positive,
        default=1,
        help="find landmarks on every k-th frame: faster, a little less exact (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Crop, report; 0 when at least one clip came out."""
    settings = CropSettings(args.size, args.region, args.stride)
    with ProgressBar() as bar:
        folder = crop_folder(args.source, args.out, settings, args.workers, bar.update)
    report = write_report(folder, args.out)
    clips = report["reasons"].get("ok", 0)
    print(f"{args.out}: {clips} of {report['videos']} videos cropped, {report['hours']:.2f} hours")
    for reason, count in report["reasons"].items():
        if reason != "ok":
            print(f"  {count} {reason}; see {args.out / 'report.json'}")
    if not clips:
        print("av-ssl crop: error: no clip came out", file=sys.stderr)
    return 0 if clips else 1


def _size(text: str) -> int:
    value = int(text)
    if value < 16 or value % 2:
        raise argparse.ArgumentTypeError(f"must be even and at least 16, not {value}")
    return value
