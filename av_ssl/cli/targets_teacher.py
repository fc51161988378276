"""`av-ssl targets teacher DATA`: what a speech model makes of the clips, and clusters of it, for DistillAV.

av-ssl targets teacher DATA --out TEACHERS/wavlm --model microsoft/wavlm-large --clusters 2000 --device cuda
av-ssl targets teacher DATA --out TEACHERS/wavlm --model microsoft/wavlm-large --clusters 2000 --no-dump
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import add_cluster_arguments, add_shard_arguments, cluster_options, positive
from av_ssl.cli.targets import show_stage
from av_ssl.jobs import ClusterOptions
from av_ssl.layout import Clip
from av_ssl.targets.speech_teacher import COMBINATIONS, NORMS, TeacherSpec
from av_ssl.targets.teacher_dump import TeacherMaker, TeacherPlan, TeacherSource, estimate, hours_of_work

PRECISIONS = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {split}.tsv")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the teacher's folder")
    parser.add_argument(
        "--model",
        required=True,
        help="folder of a Hugging Face model, or its name where it is in the cache (hf download NAME)",
    )
    parser.add_argument(
        "--layers",
        default="top:8",
        help="last, all, top:8, 17-24, or 9,12,15; counted from 1 (default: top:8)",
    )
    parser.add_argument(
        "--norm", choices=NORMS, default="instance", help="of each layer over a clip (default: instance)"
    )
    parser.add_argument(
        "--combine", choices=COMBINATIONS, default="average", help="several layers (default: average)"
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train", "valid"],
        help="k-means is fitted to the first (default: train valid)",
    )
    parser.add_argument("--clusters", metavar="K", type=positive, required=True, help="number of clusters")
    parser.add_argument(
        "--fit-targets",
        metavar="N",
        type=positive,
        default=1_000_000,
        help="fit k-means to so many targets, about (default: 1000000; 4 KB each of memory at 1024 channels)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--no-dump", action="store_true", help="make only the clusters: the teacher will run in training"
    )
    parser.add_argument("--estimate", action="store_true", help="say what it takes, and stop")
    parser.add_argument(
        "--verify", action="store_true", help="compare the checksums of what is there, and stop"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the teacher (default: cpu)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the teacher (default: float32)"
    )
    add_shard_arguments(parser)
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Say what it takes, then make the targets and clusters."""
    spec = TeacherSpec(_absolute(args.model), args.layers, args.norm, args.combine)
    plan = TeacherPlan(
        data=args.data.absolute(),
        out=args.out.absolute(),
        splits=tuple(dict.fromkeys(args.splits)),
        source=TeacherSource(spec, args.device, args.precision),
        clusters=args.clusters,
        fit_targets=args.fit_targets,
        dump=not args.no_dump,
        shards=args.shards,
        seed=args.seed,
    )
    cluster = cluster_options(args)
    maker = TeacherMaker(plan, cluster, show_stage)
    if args.verify:
        print(f"{plan.out}: {maker.verify()} shards agree with their checksums")
        return 0
    _print_estimate(maker, cluster)
    if args.estimate:
        return 0
    clusters = maker.run()
    per_channel = clusters["inertia"] / maker.settings["dim"]
    print(
        f"{plan.out}: {maker.settings['dim']} channels, {maker.settings['per_frame']} targets a video frame; "
        f"{clusters['clusters']} clusters of {clusters['fitted_to_targets']} targets, inertia "
        f"{clusters['inertia']:.4g} ({per_channel:.3f} a channel)"
    )
    return 0


def _print_estimate(maker: TeacherMaker, cluster: ClusterOptions) -> None:
    plan, clips = maker.plan, maker.missing()
    if not clips:
        return
    needed = estimate(clips, maker.settings, plan.out)
    hours = "" if cluster.kind != "local" else f", about {_duration(plan, clips, cluster.workers)}"
    kept = "" if plan.dump else " for the time being"
    print(
        f"{needed.clips} clips, {needed.audio_hours:.2f} hours of audio: {needed.stored_bytes / 1e9:.3f} GB"
        f"{kept} in {plan.out}, where {needed.free_bytes / 1e9:.1f} GB are free{hours}",
        flush=True,
    )
    needed.check(plan.out)


def _duration(plan: TeacherPlan, clips: list[Clip], workers: int) -> str:
    minutes = 60 * hours_of_work(plan.source, clips, workers)
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if Path(model).is_dir() else model
