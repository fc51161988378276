"""`av-ssl plot frames|similarity|noise`: pictures of what encoders have learned.

av-ssl plot frames FEATURES/random FEATURES/av2vec --layer 1 --alignments CORPUS/alignments --out frames.png
av-ssl plot similarity FEATURES/teacher FEATURES/student --out cka.svg
av-ssl plot noise "AV2vec=results/av2vec_0dB" "AV2vec=results/av2vec_clean" rates.tsv --out noise.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from av_ssl.analysis.alignments import labelled_frames, read_visemes, shared_clips
from av_ssl.analysis.cka import cka_matrix, shared_frames
from av_ssl.analysis.features import FeatureFolder
from av_ssl.analysis.plots import (
    COLOURS,
    METHODS,
    NoiseResult,
    by_method,
    check_suffix,
    draw_frames,
    draw_noise,
    draw_similarity,
    project,
    read_results,
    read_table,
    save,
)
from av_ssl.cli.arguments import positive
from av_ssl.cli.probe import add_label_arguments, titles
from av_ssl.errors import DataError

TABLES = (".tsv", ".csv", ".txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of each kind of picture."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_frames(kinds.add_parser("frames", help="frames in two dimensions, coloured by phone and viseme"))
    similarity = kinds.add_parser("similarity", help="how alike layers are: linear CKA, as heat maps")
    similarity.add_argument("reference", metavar="REFERENCE", type=Path, help="folder of av-ssl features")
    similarity.add_argument(
        "folders",
        metavar="FOLDER",
        type=Path,
        nargs="*",
        help="to compare with it; frames are matched by time (default: the reference with itself)",
    )
    similarity.add_argument(
        "--subset", nargs="+", metavar="NAME", help="(default: all that the folders have)"
    )
    similarity.set_defaults(draw=_similarity)
    noise = kinds.add_parser("noise", help="word error rate against signal-to-noise ratio")
    noise.add_argument(
        "results",
        metavar="[NAME=]RESULTS",
        nargs="+",
        help="folder that fairseq-generate wrote (--results-path), or a table with the columns method, snr, "
        "wer; several of one name and SNR are averaged (default name: that of the checkpoint's folder)",
    )
    noise.set_defaults(draw=_noise)
    for kind in kinds.choices.values():
        kind.add_argument(
            "--out", metavar="FILE", type=Path, required=True, help="ends in .png, .svg or .pdf"
        )


def _add_frames(frames: argparse.ArgumentParser) -> None:
    frames.add_argument(
        "folders", metavar="FOLDER", type=Path, nargs="+", help="of av-ssl features, side by side"
    )
    frames.add_argument("--layer", type=int, help="(default: the last)")
    add_label_arguments(frames)
    frames.add_argument("--method", choices=METHODS, default="tsne", help="(default: tsne)")
    frames.add_argument(
        "--frames", metavar="N", type=positive, default=2000, help="drawn at random (default: 2000)"
    )
    frames.add_argument(
        "--classes",
        metavar="N",
        type=positive,
        default=len(COLOURS),
        help=f"the most frequent ones, which are coloured (default: {len(COLOURS)})",
    )
    frames.add_argument("--only", choices=("phone", "viseme"), help="colour by one of them (default: both)")
    frames.add_argument("--seed", type=int, default=0, help="of the draw and the layout (default: 0)")
    frames.set_defaults(draw=_frames)


def run(args: argparse.Namespace) -> int:
    """Draw one picture, say how large it is."""
    check_suffix(args.out)
    draw: Callable[[argparse.Namespace], str] = args.draw
    print(draw(args))
    return 0


def _frames(args: argparse.Namespace) -> str:
    folders = [FeatureFolder(path, args.subset) for path in args.folders]
    rates = {folder.rate for folder in folders}
    if len(rates) > 1:
        raise DataError(
            f"frames of {' and '.join(f'{rate:g}' for rate in sorted(rates))} Hz cannot stand side by side; "
            "draw a picture of each"
        )
    visemes = None if args.visemes is None else read_visemes(args.visemes)
    if args.only == "viseme" and visemes is None:
        raise DataError("--only viseme needs --visemes: the table of each phone's visemes")
    clips, points, labels = shared_clips(folders), [], []
    for folder in folders:
        layer = folder.layers[-1] if args.layer is None else args.layer
        if layer not in folder.layers:
            raise DataError(
                f"--layer {layer}: {folder.path} has the layers {', '.join(map(str, folder.layers))}"
            )
        drawn = labelled_frames(folder, args.alignments, visemes, clips).drawn(args.frames, args.seed)
        points.append(project(drawn.features[:, folder.layers.index(layer)], args.method, args.seed))
        labels.append({kind: names for kind, names in drawn.labels.items() if args.only in (None, kind)})
    size = save(draw_frames(points, labels, titles(args.folders), args.classes), args.out)
    frames = " and ".join(map(str, sorted({len(place) for place in points})))
    return f"{args.out}: {frames} frames of {len(clips)} clips by {args.method}; {size / 1000:.0f} kB"


def _similarity(args: argparse.Namespace) -> str:
    paths = args.folders or [args.reference]
    first, *others = titles([args.reference, *args.folders])
    reference = FeatureFolder(args.reference, args.subset)
    folders = [FeatureFolder(path, args.subset) for path in paths]
    matrices, lines = [], []
    for folder, name in zip(folders, others or [first], strict=True):
        matrix = cka_matrix(*shared_frames(folder, reference))
        matrices.append(matrix)
        place = np.unravel_index(matrix.argmax(), matrix.shape)
        lines += [f"linear CKA of {name} (rows) and {first} (columns: layers {reference.layers})"]
        lines += [
            f"  layer {layer}: " + " ".join(f"{value:.3f}" for value in row)
            for layer, row in zip(folder.layers, matrix, strict=True)
        ]
        lines += [
            f"  most alike: layer {folder.layers[place[0]]} and layer {reference.layers[place[1]]} "
            f"({matrix.max():.3f})"
        ]
    layers = [folder.layers for folder in folders]
    size = save(draw_similarity(matrices, layers, others or [first], first, reference.layers), args.out)
    return "\n".join([*lines, f"{args.out}: {size / 1000:.0f} kB"])


def _noise(args: argparse.Namespace) -> str:
    results: list[NoiseResult] = []
    for text in args.results:
        name, _, path = text.rpartition("=")
        if Path(path).suffix in TABLES and Path(path).is_file():
            results += [NoiseResult(name or row.method, row.snr, row.rate) for row in read_table(Path(path))]
        else:
            results += read_results(Path(path), name or None)
    size = save(draw_noise(by_method(results)), args.out)
    return f"{args.out}: {len(results)} word error rates; {size / 1000:.0f} kB"
