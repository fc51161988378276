"""``av-ssl analyse``: linear probes and figures of stored features; embeddings of LUPI.

av-ssl analyse probe FEATURES/random FEATURES/av2vec --alignments CORPUS/alignments --visemes visemes.tsv
av-ssl analyse plot frames FEATURES/random FEATURES/av2vec --alignments CORPUS/alignments --out frames.png
av-ssl analyse plot similarity FEATURES/teacher FEATURES/student --out cka.svg
av-ssl analyse embeddings TEACHER STUDENT DATA/test.tsv DATA/test.emo
av-ssl analyse plot noise "AV2vec=results/av2vec_0dB" "AV2vec=results/av2vec_clean" rates.tsv --out noise.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from av_ssl.cli.arguments import check_paths, not_negative, positive
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar
from av_ssl.manifest import read_manifest

# Probes need scikit-learn and figures matplotlib, two extras, and all need torch, which takes seconds:
# each is imported where it is used.


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="of av-ssl features")
    add_label_arguments(parser)
    parser.add_argument(
        "--folds",
        metavar="K",
        type=positive,
        default=4,
        help="parts that the speakers are drawn into; each is tested by a probe of the others (default: 4)",
    )
    parser.add_argument(
        "--frames", metavar="N", type=positive, help="drawn at random, to be faster (default: all)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the draws (default: 0)")


def run_probe(args: argparse.Namespace) -> int:
    """Probe and print a table for each kind of label."""
    check_paths(*args.folders, args.alignments, args.visemes)
    from av_ssl.analysis.alignments import read_visemes
    from av_ssl.analysis.probe import probe_folders

    visemes = None if args.visemes is None else read_visemes(args.visemes)
    with ProgressBar("probe") as bar:
        frames, clips, tables = probe_folders(
            args.folders,
            args.alignments,
            visemes,
            args.subset,
            args.folds,
            args.frames,
            args.seed,
            bar.update,
        )
    print(
        f"Accuracy in % of linear probes on {frames} frames of {clips} clips, tested on speakers that they "
        f"were not trained on, {args.folds} folds; in parentheses lowest and highest fold."
    )
    for table in tables:
        print(f"\n{table}")
    return 0


def add_embeddings_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", metavar="TEACHER", type=Path, help="checkpoint of an av_classifier")
    parser.add_argument("student", metavar="STUDENT", type=Path, help="checkpoint of a lupi_student of it")
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="the clips, e.g. DATA/test.tsv")
    parser.add_argument(
        "labels", metavar="LABELS", type=Path, help="one class name a line, e.g. DATA/test.emo"
    )


def run_embeddings(args: argparse.Namespace) -> int:
    """Print how well embeddings separate the classes, and how much of them the student predicts."""
    check_paths(args.teacher, args.student, args.manifest, args.labels)
    from av_ssl.analysis.embeddings import embedding_report, embedding_scores
    from av_ssl.classification.lupi import LupiStudent
    from av_ssl.data.labels import LabelFile
    from av_ssl.inference import Classifier

    clips = read_manifest(args.manifest)
    lines = LabelFile(args.labels, clips)
    labels = [lines.line(number) for number in range(len(clips))]
    with ProgressBar("clip") as bar:
        models = [Classifier.open(checkpoint) for checkpoint in (args.teacher, args.student)]
        if isinstance(models[0].model, LupiStudent) or not isinstance(models[1].model, LupiStudent):
            raise DataError(
                f"{args.teacher} holds {type(models[0].model).__name__}, {args.student} "
                f"{type(models[1].model).__name__}; name the teacher first, then its student"
            )
        found = [one.embeddings(clips, progress=bar.update) for one in models]
    teacher, student = (np.stack([one[clip.id] for clip in clips]) for one in found)
    print(embedding_report(embedding_scores(teacher, student, labels)))
    return 0


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alignments",
        metavar="FOLDER",
        type=Path,
        required=True,
        help='of each clip {id}.json: "phones" as [label, start, end] in seconds, "speaker"; or GRID\'s '
        "{id}.align",
    )
    parser.add_argument(
        "--visemes",
        metavar="FILE",
        type=Path,
        help="lines of viseme, tab, phones; several visemes of a phone in a row (default: phones alone)",
    )
    add_subset_argument(parser)


def add_subset_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subset", nargs="+", metavar="NAME", help="(default: all that the folders have)")


def add_plot_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    add_frames_arguments(kinds.add_parser("frames", help="frames in two dimensions, by what is said"))
    similarity = kinds.add_parser("similarity", help="similarity of layers: linear CKA, as heat maps")
    similarity.add_argument("reference", metavar="REFERENCE", type=Path, help="folder of av-ssl features")
    similarity.add_argument(
        "folders",
        metavar="FOLDER",
        type=Path,
        nargs="*",
        help="to compare with it; frames are matched by time (default: the reference with itself)",
    )
    add_subset_argument(similarity)
    noise = kinds.add_parser("noise", help="word error rate against signal-to-noise ratio")
    noise.add_argument(
        "results",
        metavar="[NAME=]RESULTS",
        nargs="+",
        help="folder that fairseq-generate wrote (--results-path), or a table with the columns method, snr, "
        "wer; several of one name and SNR are averaged (default name: that of the checkpoint's folder)",
    )
    for kind in kinds.choices.values():
        kind.add_argument(
            "--out", metavar="FILE", type=Path, required=True, help="ends in .png, .svg or .pdf"
        )


def add_frames_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", metavar="FOLDER", type=Path, nargs="+", help="of av-ssl features, side by side"
    )
    parser.add_argument("--layer", type=int, help="(default: the last)")
    add_label_arguments(parser)
    parser.add_argument("--method", choices=("tsne", "pca", "umap"), default="tsne", help="(default: tsne)")
    parser.add_argument(
        "--frames", metavar="N", type=positive, default=2000, help="drawn at random (default: 2000)"
    )
    parser.add_argument(
        "--classes",
        metavar="N|NAME,NAME",
        type=_classes,
        default=7,
        help="to colour: the N most frequent, or phones or words, without frames of others (default: 7)",
    )
    parser.add_argument("--only", choices=("phone", "word", "viseme"), help="colour by it alone")
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of the draw and the layout (default: 0)"
    )


def _classes(text: str) -> int | list[str]:
    return positive(text) if text.isdecimal() else text.split(",")


def run_plot(args: argparse.Namespace) -> int:
    """Draw one figure and describe it."""
    from av_ssl.analysis.alignments import read_visemes
    from av_ssl.analysis.plots import plot_frames, plot_noise, plot_similarity

    if args.kind == "similarity":
        text = plot_similarity(args.reference, args.folders, args.out, args.subset)
    elif args.kind == "noise":
        text = plot_noise(args.results, args.out)
    else:
        text = plot_frames(
            args.folders,
            args.out,
            args.alignments,
            None if args.visemes is None else read_visemes(args.visemes),
            args.only,
            args.layer,
            args.method,
            args.frames,
            args.classes,
            args.subset,
            args.seed,
        )
    print(text)
    return 0
