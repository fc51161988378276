"""`av-ssl targets DATA`: cluster labels `{split}.km` and `dict.km.txt` for pre-training.

The first iteration of AV-HuBERT (Shi et al., 2022) clusters MFCC, later ones a layer of the model before:

    av-ssl targets DATA --out LABELS1 --clusters 100
    av-ssl targets DATA --out LABELS2 --clusters 100 --checkpoint iter1/checkpoint_best.pt --layer 9
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from av_ssl.cli.arguments import add_cluster_arguments, add_shard_arguments, cluster_options, positive
from av_ssl.errors import DataError
from av_ssl.inference import FeatureSpec
from av_ssl.io import ProgressBar
from av_ssl.jobs import Progress
from av_ssl.targets.cluster_labels import TargetMaker, TargetPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {split}.tsv")
    parser.add_argument("--out", metavar="LABELS", type=Path, help="folder for the labels (default: DATA)")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train", "valid"],
        help="k-means is fitted to the first (default: train valid)",
    )
    parser.add_argument("--clusters", metavar="K", type=positive, required=True, help="number of clusters")
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="cluster a layer of this model (default: MFCC)"
    )
    parser.add_argument("--layer", metavar="N", type=int, help="layer of its Transformer, from 1")
    parser.add_argument(
        "--modalities",
        choices=("audio", "video", "av"),
        help="what the model is given (default: what it was trained with)",
    )
    parser.add_argument(
        "--label-name", type=_name, default="km", help="suffix of the label files (default: km)"
    )
    parser.add_argument(
        "--fit-share", type=_share, default=0.1, help="share of the clips to fit k-means to (default: 0.1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    add_shard_arguments(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the model (default: cpu)"
    )
    parser.add_argument("--half", action="store_true", help="store features in float16: half the disk space")
    parser.add_argument(
        "--keep-features", action="store_true", help="do not delete LABELS/features at the end"
    )
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the labels, check them, say how the clusters are used."""
    if (args.checkpoint is None) != (args.layer is None):
        raise DataError("--checkpoint and --layer belong together: name both, or neither for MFCC")
    if args.checkpoint is None and args.modalities:
        raise DataError("--modalities is for a model: name --checkpoint, or leave it out for MFCC")
    plan = TargetPlan(
        data=args.data.absolute(),
        out=(args.out or args.data).absolute(),
        splits=tuple(dict.fromkeys(args.splits)),
        spec=FeatureSpec(
            args.checkpoint and args.checkpoint.absolute(), args.layer or 0, args.device, args.modalities
        ),
        clusters=args.clusters,
        label=args.label_name,
        shards=args.shards,
        seed=args.seed,
        fit_share=args.fit_share,
        dtype="float16" if args.half else "float32",
    )
    report = TargetMaker(plan, cluster_options(args), show_stage).run(args.keep_features)
    for split, numbers in report.items():
        _print_split(plan, split, numbers)
    print(f"{plan.dictionary}: {plan.clusters} ids; the whole report: {plan.work / 'report.json'}")
    return 0


@contextmanager
def show_stage(text: str) -> Iterator[Progress]:
    """Name what begins, and show how far it is."""
    print(f"{text}:", flush=True)
    with ProgressBar("shard") as bar:
        yield bar.update


def _print_split(plan: TargetPlan, split: str, numbers: dict[str, Any]) -> None:
    used = numbers["clusters"] - numbers["clusters_unused"]
    print(
        f"{plan.labels(split)}: {numbers['clips']} clips, {numbers['labels']} labels at "
        f"{numbers['labels_a_second']} Hz ({numbers['hours']:.2f} hours)\n"
        f"  clusters: {used} of {numbers['clusters']} used, perplexity {numbers['perplexity']:.1f} (entropy "
        f"{numbers['entropy_bits']:.2f} bits), the most frequent has {numbers['largest_share']:.1%}; "
        f"inertia {numbers['inertia_a_frame']:.4g} a frame"
    )
    if missing := numbers["clips_without_labels"]:
        print(
            f"  {len(missing)} clips cannot be read and have NO labels, so training leaves them out: "
            f"{', '.join(missing[:5])}; {plan.out / f'bad_clips.{split}.tsv'} says why. "
            f"When they are mended, delete it and {plan.labels(split)}, and run the same command again"
        )
    if other := sorted(set(numbers["clips_of_other_length"]) - set(missing)):
        print(
            f"  {len(other)} clips differ by 0.1 s or more from their length in the manifest, so training "
            f"leaves them out: {', '.join(other[:5])}"
        )


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w-]+", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, - and _, not {text!r}")
    return text


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {value}")
    return value
