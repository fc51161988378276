"""``av-ssl features CHECKPOINT DATA``: features of clips from the layers of a model, as arrays.

av-ssl features av2vec.pt DATA --subset test --out FEATURES/av2vec
av-ssl features av2vec.pt DATA --subset test --out FEATURES/random --untrained 0
av-ssl features hub/wavlm-base DATA --subset test --out FEATURES/wavlm --layers 6 9 12
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import (
    add_job_arguments,
    add_shard_arguments,
    check_paths,
    job_options,
    not_negative,
    positive,
)

# What imports torch is imported where it is needed: --help and a wrong path are then fast.

NAMED = 5  # clips in a message


def add_features_arguments(parser: argparse.ArgumentParser) -> None:
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
        help="of the Transformer, from 1; 0: its input (default: all, and 0 if the model gives it)",
    )
    parser.add_argument(
        "--modalities",
        choices=("audio", "video", "av"),
        help="streams given to the model (default: those it was trained with)",
    )
    parser.add_argument(
        "--format",
        choices=("npy", "npz"),
        default="npy",
        help="one array [N, L, C] a subset, or one .npz a clip (default: npy)",
    )
    parser.add_argument("--half", action="store_true", help="float16: half the disk space")
    parser.add_argument(
        "--clips", metavar="N", type=positive, help="N clips, evenly spread over the list (default: all)"
    )
    parser.add_argument(
        "--untrained",
        metavar="SEED",
        type=not_negative,
        help="use random weights instead of the checkpoint's, as an untrained baseline",
    )
    add_shard_arguments(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the model (default: cpu)"
    )
    add_job_arguments(parser)


def run_features(args: argparse.Namespace) -> int:
    """Store the arrays, report what there is."""
    check_paths(args.checkpoint, args.data)
    from av_ssl.analysis.features import FeaturePlan, store_features
    from av_ssl.inference import LayerSource

    layers = None if args.layers is None else tuple(sorted(set(args.layers)))
    plan = FeaturePlan(
        data=args.data.absolute(),
        out=args.out.absolute(),
        subsets=tuple(dict.fromkeys(args.subset)),
        source=LayerSource(args.checkpoint.absolute(), layers, args.modalities, args.device, args.untrained),
        clips=args.clips,
        shards=args.shards,
        dtype="float16" if args.half else "float32",
        form=args.format,
    )
    settings, subsets = store_features(plan, job_options(args))
    for subset, (clips, frames, unreadable) in subsets.items():
        print(
            f"{plan.out}: {subset}: {clips} clips, {frames} frames at {settings['rate']} Hz; "
            f"{settings['channels']} channels of layers {' '.join(map(str, settings['layers']))}; "
            f"from {' and '.join(settings['streams'])}"
        )
        if unreadable:
            print(
                f"  {len(unreadable)} clips cannot be read and have no frames: "
                f"{', '.join(unreadable[:NAMED])}; {plan.out / f'bad_clips.{subset}.tsv'} gives the reasons"
            )
    return 0
