"""`av-ssl features CHECKPOINT DATA`: what the layers of a model make of clips, as arrays.

av-ssl features av2vec.pt DATA --subset test --out FEATURES/av2vec
av-ssl features av2vec.pt DATA --subset test --out FEATURES/random --untrained 0
av-ssl features hub/wavlm-base DATA --subset test --out FEATURES/wavlm --layers 6 9 12
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.analysis.features import FORMATS, FeatureMaker, FeaturePlan
from av_ssl.cli.arguments import add_cluster_arguments, add_shard_arguments, cluster_options, positive
from av_ssl.cli.targets import show_stage
from av_ssl.inference import LayerSource

NAMED = 5  # clips in a message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="any model: pre-trained, fine-tuned, a classifier; or the folder of a Hugging Face speech model",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {subset}.tsv")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="for the arrays")
    parser.add_argument("--subset", nargs="+", default=["test"], metavar="NAME", help="(default: test)")
    parser.add_argument(
        "--layers",
        nargs="+",
        type=int,
        metavar="N",
        help="of the Transformer, from 1; 0: its input (default: all, and 0 where it can be had)",
    )
    parser.add_argument(
        "--modalities",
        choices=("audio", "video", "av"),
        help="what the model is given (default: what it was trained with)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="npy",
        help="one array [N, L, C] a subset, or one .npz a clip (default: npy)",
    )
    parser.add_argument("--half", action="store_true", help="float16: half the disk space")
    parser.add_argument(
        "--clips", metavar="N", type=positive, help="so many, evenly spread over the list (default: all)"
    )
    parser.add_argument(
        "--untrained",
        metavar="SEED",
        type=int,
        help="take random weights in place of the checkpoint's, to compare with",
    )
    add_shard_arguments(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the model (default: cpu)"
    )
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the arrays, say what there is."""
    layers = None if args.layers is None else tuple(sorted(set(args.layers)))
    source = LayerSource(args.checkpoint.absolute(), layers, args.modalities, args.device, args.untrained)
    plan = FeaturePlan(
        data=args.data.absolute(),
        out=args.out.absolute(),
        subsets=tuple(dict.fromkeys(args.subset)),
        source=source,
        clips=args.clips,
        shards=args.shards,
        dtype="float16" if args.half else "float32",
        form=args.format,
    )
    maker = FeatureMaker(plan, cluster_options(args), show_stage)
    settings = maker.settings
    for subset, (clips, frames, without) in maker.run().items():
        print(
            f"{plan.out}: {subset}: {clips} clips, {frames} frames at {settings['rate']} Hz; "
            f"{settings['channels']} channels of layers {' '.join(map(str, settings['layers']))}; "
            f"from {' and '.join(settings['streams'])}"
        )
        if without:
            print(
                f"  {len(without)} clips cannot be read and have no frames: {', '.join(without[:NAMED])}; "
                f"{plan.out / f'bad_clips.{subset}.tsv'} says why"
            )
    return 0
