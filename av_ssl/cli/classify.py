"""`av-ssl classify CHECKPOINT MANIFEST LABELS`: accuracy, mean recall, F1 and the confusion matrix."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.classification.criterion import class_scores, confusion_matrix, confusion_table, score_line
from av_ssl.classification.verification import ClipRunner, load_classifier
from av_ssl.data.classes import ClassList
from av_ssl.data.noise import NoiseMixer, parse_snr
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, write_atomically
from av_ssl.layout import Clip, read_manifest

LARGEST_TABLE = 40
"""Classes of which the confusion matrix is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_scoring_arguments(parser)
    parser.add_argument(
        "labels", metavar="LABELS", type=Path, help="one class name a line, e.g. DATA/test.emo"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write 'ID TRUTH FOUND', with tabs between")


def run(args: argparse.Namespace) -> int:
    """Classify, report; 0 when done."""
    model = load_classifier(args.checkpoint, args.device)
    names: list[str] = list(model.class_names)
    if not names:
        raise DataError(f"{args.checkpoint}: holds no list of classes; it was trained without labels")
    classes = ClassList(names, str(args.checkpoint))
    clips = read_manifest(args.manifest)
    truth = classes.read(args.labels, clips, training=True)
    with ProgressBar("clip") as bar:
        logits = ClipRunner(model, noise_of(args), args.workers).predictions(clips, bar.update)
    found = np.array([logits[clip.id].argmax() for clip in clips])
    confusion = confusion_matrix(truth, found, len(classes))
    print(score_line(class_scores(confusion), int(confusion.sum())))
    if len(classes) <= LARGEST_TABLE:
        print(confusion_table(confusion, names))
    if args.out is not None:
        write_atomically(args.out, _rows(clips, truth, found, names).encode())
    return 0


def _rows(clips: list[Clip], truth: NDArray[np.int64], found: NDArray[np.int64], names: list[str]) -> str:
    shown = [*names, "?"]  # -1 is the last
    rows = zip(clips, truth, found, strict=True)
    return "".join(f"{clip.id}\t{shown[true]}\t{names[guess]}\n" for clip, true, guess in rows)


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
