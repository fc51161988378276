"""`av-ssl probe FOLDER...`: accuracy of linear probes for phones and visemes, by layer.

av-ssl probe FEATURES/random FEATURES/av2vec --alignments CORPUS/alignments --visemes visemes.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.analysis.alignments import labelled_frames, read_visemes, shared_clips
from av_ssl.analysis.features import FeatureFolder
from av_ssl.analysis.probe import ProbeScore, probe
from av_ssl.cli.arguments import positive
from av_ssl.io import ProgressBar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
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
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the phones and visemes of frames come from."""
    parser.add_argument(
        "--alignments",
        metavar="FOLDER",
        type=Path,
        required=True,
        help='{id}.json of each clip: "phones" as [label, start, end] in seconds, "speaker"',
    )
    parser.add_argument(
        "--visemes",
        metavar="FILE",
        type=Path,
        help="lines of viseme, tab, phones; several visemes of a phone in a row (default: phones alone)",
    )
    parser.add_argument("--subset", nargs="+", metavar="NAME", help="(default: all that the folders have)")


def run(args: argparse.Namespace) -> int:
    """Probe, print a table a kind of label."""
    names = titles(args.folders)
    folders = [FeatureFolder(path, args.subset) for path in args.folders]
    visemes = None if args.visemes is None else read_visemes(args.visemes)
    clips = shared_clips(folders)
    scores: dict[str, dict[str, dict[int, ProbeScore]]] = {}
    done, total = 0, sum(len(folder.layers) for folder in folders) * (1 if visemes is None else 2)
    with ProgressBar("probe") as bar:
        for name, folder in zip(names, folders, strict=True):
            frames = labelled_frames(folder, args.alignments, visemes, clips).drawn(args.frames, args.seed)
            for kind, labels in frames.labels.items():
                for place, layer in enumerate(folder.layers):
                    bar.update(done, total)
                    score = probe(frames.features[:, place], labels, frames.speakers, args.folds, args.seed)
                    scores.setdefault(kind, {}).setdefault(name, {})[layer] = score
                    done += 1
        bar.update(done, total)
    print(
        f"Accuracy in % of linear probes on {len(frames)} frames of {len(clips)} clips, tested on speakers "
        f"that they were not trained on, {args.folds} folds; in parentheses lowest and highest fold."
    )
    for kind, of_kind in scores.items():
        classes = len(set(frames.labels[kind]))
        print(f"\n{probe_table(kind, classes, of_kind)}")
    return 0


def titles(folders: list[Path]) -> list[str]:
    """Names of folders that tell them apart: the last parts of their paths."""
    paths, parts = [path.absolute() for path in folders], 1
    while len({path.parts[-parts:] for path in paths}) < len(set(paths)):
        parts += 1
    return ["/".join(path.parts[-parts:]) for path in paths]


def probe_table(kind: str, classes: int, scores: dict[str, dict[int, ProbeScore]]) -> str:
    """Markdown: a row a layer, a column a folder; a dash where a folder lacks the layer."""
    layers = sorted({layer for of_folder in scores.values() for layer in of_folder})
    majority = next(iter(next(iter(scores.values())).values())).majority
    lines = [f"| {kind} | " + " | ".join(scores) + " |", "|---|" + "---|" * len(scores)]
    for layer in layers:
        cells = [_cell(of_folder.get(layer)) for of_folder in scores.values()]
        lines.append(f"| layer {layer} | " + " | ".join(cells) + " |")
    lines.append(f"\n{classes} classes; always the most frequent one: {100 * majority:.1f}")
    return "\n".join(lines)


def _cell(score: ProbeScore | None) -> str:
    if score is None:
        return "-"
    low, high = min(score.folds), max(score.folds)
    return f"{100 * score.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
