"""Draw the figures of a finished experiment.

python examples/experiments/figures.py labels docs/results/grid.json --subset test_seen --out labels.png
python examples/experiments/figures.py noise docs/results/grid.json --subset test_seen --out noise.png
python examples/experiments/figures.py lips CHECKPOINT DATA --subset test_seen --out lips.png
"""

import argparse
import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from from_av_ssl import Figure, draw_noise, load, new_figure, read_crops, read_manifest, save, style_of
from methods import TASKS, Column

SHOWN = 15  # frames of a strip


def scores_of(method: dict[str, Any], subset: str) -> dict[str, list[float]]:
    """Of all seeds, by column."""
    scores: dict[str, list[float]] = {}
    for seed in method["seeds"].values():
        for key, score in seed["scores"].items():
            if key.startswith(f"{subset}/"):
                scores.setdefault(key.removeprefix(f"{subset}/"), []).append(score)
    return scores


def draw_labels(results: dict[str, Any], subset: str) -> Figure:
    """Word error rate against the number of labelled clips: the mean over seeds, a line a method.

    Args:
        results: of a file of run.py; the columns of the curve end in @NUMBER.
    """
    figure = new_figure(5.2, 3.6)
    axis, numbers = figure.subplots(), set[int]()
    for method in results["methods"].values():
        scores = {key.partition("@")[2]: rates for key, rates in scores_of(method, subset).items()}
        curve = dict(sorted((int(key), mean(rates)) for key, rates in scores.items() if key))
        if len(curve) > 1:
            style = style_of(len(axis.lines))
            axis.plot(list(curve), list(curve.values()), label=method["title"], **style)
        numbers |= curve.keys()
    axis.set_xscale("log")
    axis.set_xticks(sorted(numbers), list(map(str, sorted(numbers))))
    axis.minorticks_off()
    axis.set(xlabel="labelled clips", ylabel="word error rate (%)", ylim=(0, None))
    axis.grid(axis="y", color="#EEEEEE")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def noise_curves(results: dict[str, Any], subset: str) -> dict[str, dict[float, list[float]]]:
    """Word error rates of all seeds by method and task, and by SNR in dB, infinite where clean.

    Of methods that were scored at several levels; rows of one title are one method.
    """
    curves: dict[str, dict[float, list[float]]] = {}
    for method in results["methods"].values():
        for key, rates in scores_of(method, subset).items():
            column = Column.read(key)
            if column.streams == "video" or column.labelled or not (column.snr or column.clips == "clean"):
                continue
            curve = curves.setdefault(f"{method['title']}, {TASKS[column.streams]}", {})
            curve.setdefault(float(column.snr or math.inf), rates)
    return {name: dict(sorted(curve.items())) for name, curve in curves.items() if len(curve) > 2}


def draw_lips(checkpoint: Path, data: Path, subset: str, count: int = 4) -> Figure:
    """A row for each clip: mouth crops, what was said, and what a lip-reader wrote, with its confidence.

    The clips, at most ``count``, are spread evenly over the list of the subset.
    """
    clips = read_manifest(data / f"{subset}.tsv")
    texts = (data / f"{subset}.wrd").read_text(encoding="utf-8").splitlines()
    model = load(checkpoint)
    count = min(count, len(clips))
    places = [number * len(clips) // count for number in range(count)]
    figure = new_figure(7.5, 0.95 * count)
    for axis, place in zip(figure.subplots(count, squeeze=False).flat, places, strict=True):
        crops = read_crops(clips[place].video)
        chosen = np.linspace(0, len(crops) - 1, SHOWN).round().astype(int)
        axis.imshow(np.hstack(list(crops[chosen])), cmap="gray", vmin=0, vmax=255)
        transcript = model.transcribe(clips[place].video, word_timestamps=True, modalities="video")
        words = [word for segment in transcript.segments for word in segment.words]
        written = "  ".join(f"{one.word} {one.score:.0%}" for one in words)
        axis.set_title(f"said: {texts[place]}    read: {written}", fontsize=8)
        axis.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    figures = parser.add_subparsers(dest="figure", required=True)
    labels = figures.add_parser("labels", help="word error rate against labelled clips")
    noise = figures.add_parser("noise", help="word error rate against the level of babble")
    for each in (labels, noise):
        each.add_argument("results", type=Path, metavar="RESULTS.json", help="of run.py")
    lips = figures.add_parser("lips", help="mouth crops and what a lip-reader wrote")
    lips.add_argument("checkpoint", type=Path)
    lips.add_argument("data", type=Path, help="data folder")
    for each in (labels, noise, lips):
        each.add_argument("--subset", required=True)
        each.add_argument("--out", type=Path, required=True, help="PNG, SVG or PDF")
    args = parser.parse_args()
    if args.figure == "lips":
        figure = draw_lips(args.checkpoint, args.data, args.subset)
    elif args.figure == "labels":
        figure = draw_labels(json.loads(args.results.read_text()), args.subset)
    else:
        figure = draw_noise(noise_curves(json.loads(args.results.read_text()), args.subset))
    save(figure, args.out)


if __name__ == "__main__":
    main()
