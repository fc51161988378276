"""``av-ssl crop IN OUT``: every video below IN to a mouth crop and a wav in OUT."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from av_ssl.cli.arguments import (
    add_corpus_arguments,
    add_job_arguments,
    chosen_clips,
    job_options,
    positive,
    share,
)
from av_ssl.corpora import CORPORA
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar
from av_ssl.jobs import available_cores
from av_ssl.media.alignment import REGIONS
from av_ssl.media.backends import BACKENDS, OPENCV
from av_ssl.media.crop_folder import check_out, crop_folder, crop_on_cluster
from av_ssl.media.crop_report import write_report
from av_ssl.media.crops import CropSettings


def add_crop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", type=Path, help="folder with videos, searched with its subfolders"
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder for video/, audio/, clips.tsv, report.json"
    )
    add_corpus_arguments(parser)
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )
    parser.add_argument("--size", type=_size, default=96, help="side of the crops in pixels (default: 96)")
    parser.add_argument("--region", choices=REGIONS, default="mouth", help="(default: mouth)")
    parser.add_argument(
        "--stride",
        type=positive,
        default=CropSettings.stride,
        help="find landmarks on every k-th frame: 1 is slower, a little more exact (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=OPENCV,
        help="what finds the landmarks; av-ssl doctor reports which work here (default: opencv)",
    )
    parser.add_argument("--dlib-model", metavar="FILE", type=Path, help="68-point shape predictor, for dlib")
    parser.add_argument(
        "--landmarks",
        metavar="DIR",
        type=Path,
        help="folder with ID.pkl, ID.npy or ID.npz (auto_avsr's, AV-HuBERT's, your own), for files",
    )
    parser.add_argument(
        "--mean-face",
        metavar="FILE",
        type=Path,
        help="AV-HuBERT's mean face (.npy): position, scale and smoothing as its checkpoints expect",
    )
    parser.add_argument(
        "--min-face",
        type=share,
        default=CropSettings.min_face,
        help="share of the frames in which the speaker's face must be found (default: %(default)s)",
    )
    parser.add_argument(
        "--min-inside",
        type=share,
        default=CropSettings.min_inside,
        help="share of the crops' area that must lie inside the frame (default: %(default)s)",
    )
    add_job_arguments(parser)


def run_crop(args: argparse.Namespace) -> int:
    """Crop and report; 0 when at least one clip was cropped."""
    files = (args.dlib_model, args.landmarks, args.mean_face)
    dlib_model, landmarks, mean_face = (None if path is None else str(path.absolute()) for path in files)
    settings = CropSettings(
        args.size,
        args.region,
        args.stride,
        args.backend,
        dlib_model,
        landmarks,
        mean_face,
        args.min_face,
        args.min_inside,
    )
    if CORPORA[args.corpus].audio_only:
        title = CORPORA[args.corpus].title
        raise DataError(f"{args.source}: {title} has no videos; continue with av-ssl data manifest")
    check_out(args.source, args.out)
    sources = {name: clip.source for name, clip in chosen_clips(args).items()}
    where = job_options(args)
    with ProgressBar("clip" if where.kind == "local" else "shard") as bar:
        if where.kind == "local":
            folder = crop_folder(sources, args.out, settings, args.workers, bar.update)
        else:
            folder = crop_on_cluster(sources, args.out, settings, where, bar.update)
    report = write_report(folder, args.out)
    clips = report["reasons"].get("ok", 0)
    print(f"{args.out}: {clips} of {report['videos']} videos cropped, {report['hours']:.2f} hours")
    for reason, count in report["reasons"].items():
        if reason != "ok":
            print(f"  {count} {reason}; see {args.out / 'report.json'}")
    if not clips:
        print("av-ssl crop: error: no clip was cropped", file=sys.stderr)
    return 0 if clips else 1


def _size(text: str) -> int:
    value = int(text)
    if value < 16 or value % 2:
        raise argparse.ArgumentTypeError(f"must be even and at least 16, not {value}")
    return value
