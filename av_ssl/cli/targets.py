"""``av-ssl targets clusters|teacher``: targets for pre-training, from clusters or speech models.

``clusters`` makes labels ``{split}.km`` and ``dict.km.txt``.  The first iteration of AV-HuBERT (Shi et al.,
2022) clusters MFCC, later ones a layer of the previous model:

    av-ssl targets clusters DATA --out LABELS1 --clusters 100
    av-ssl targets clusters DATA --out LABELS2 --clusters 100 --checkpoint iter1/checkpoint_best.pt --layer 9

``teacher`` stores features of a speech model and their clusters, for DistillAV:

    av-ssl targets teacher DATA --out WAVLM --model microsoft/wavlm-large --clusters 2000 --device cuda
    av-ssl targets teacher DATA --out WAVLM --model microsoft/wavlm-large --clusters 2000 --no-dump
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from av_ssl.cli.arguments import (
    add_job_arguments,
    add_shard_arguments,
    check_paths,
    job_options,
    not_negative,
    positive,
)
from av_ssl.errors import DataError
from av_ssl.io import read_json
from av_ssl.manifest import read_manifest

if TYPE_CHECKING:
    from av_ssl.targets.feature_shards import FeatureSource

# What imports torch is imported where it is needed: --help and a wrong path are then fast.


def add_clusters_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common_arguments(parser)
    parser.add_argument("--out", metavar="LABELS", type=Path, help="folder for the labels (default: DATA)")
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="cluster a layer of this model (default: MFCC)"
    )
    parser.add_argument("--layer", metavar="N", type=not_negative, help="layer of its Transformer, from 1")
    parser.add_argument(
        "--modalities",
        choices=("audio", "video", "av"),
        help="streams given to the model (default: those it was trained with)",
    )
    parser.add_argument(
        "--label-name", type=_name, default="km", help="suffix of the label files (default: km)"
    )
    parser.add_argument(
        "--fit-share", type=_share, default=0.1, help="share of the clips to fit k-means to (default: 0.1)"
    )
    parser.add_argument("--half", action="store_true", help="store features in float16: half the disk space")
    parser.add_argument(
        "--keep-features", action="store_true", help="do not delete LABELS/features at the end"
    )
    parser.add_argument(
        "--alignments",
        metavar="FOLDER",
        type=Path,
        help="{id}.json with phones or GRID's {id}.align: print how well clusters agree with what is "
        "said and with the speaker; also of finished labels",
    )


def run_clusters(args: argparse.Namespace) -> int:
    """Make the labels, check them, report how the clusters are used."""
    if (args.checkpoint is None) != (args.layer is None):
        raise DataError("--checkpoint and --layer belong together: give both, or neither for MFCC")
    if args.checkpoint is None and args.modalities:
        raise DataError("--modalities is for a model: give --checkpoint, or leave it out for MFCC")
    check_paths(args.data, args.checkpoint, args.alignments)
    from av_ssl.analysis.agreement import agreement_table
    from av_ssl.inference import FeatureSpec
    from av_ssl.targets.cluster_labels import ClusterPlan, make_cluster_labels, summary
    from av_ssl.targets.mfcc import MfccSource

    source: FeatureSource = MfccSource()
    if args.checkpoint is not None:
        source = FeatureSpec(args.checkpoint.absolute(), args.layer, args.device, args.modalities)
    plan = ClusterPlan(
        data=args.data.absolute(),
        out=(args.out or args.data).absolute(),
        splits=tuple(dict.fromkeys(args.splits)),
        source=source,
        clusters=args.clusters,
        label=args.label_name,
        shards=args.shards,
        seed=args.seed,
        fit_share=args.fit_share,
        dtype="float16" if args.half else "float32",
        device=args.device,
        keep_features=args.keep_features,
    )
    for split, usage in make_cluster_labels(plan, job_options(args)).items():
        print(summary(plan, split, usage))
        if args.alignments:
            clips = read_manifest(plan.data / f"{split}.tsv")
            table = agreement_table(plan.labels(split), clips, plan.source.rate, args.alignments)
            print(f"\n{table}\n")
    print(f"{plan.dictionary}: {plan.clusters} ids; the complete report: {plan.report}")
    return 0


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common_arguments(parser)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the teacher's folder")
    parser.add_argument(
        "--model",
        required=True,
        help="folder of a Hugging Face model, or its name if it is in the cache (hf download NAME)",
    )
    parser.add_argument(
        "--layers",
        default="top:8",
        help="last, all, top:8, 17-24, or 9,12,15; counted from 1 (default: top:8)",
    )
    parser.add_argument(
        "--norm",
        default="instance",
        help="of each layer over a clip: instance or none (default: instance)",
    )
    parser.add_argument(
        "--combine", default="average", help="several layers: average or stack (default: average)"
    )
    parser.add_argument(
        "--remove-position",
        action="store_true",
        help="subtract what 200 training clips have in common at each position, and normalise again; for "
        "models with positions in their outputs, such as Whisper, where clips have similar lengths",
    )
    parser.add_argument(
        "--fit-targets",
        metavar="N",
        type=positive,
        default=1_000_000,
        help="fit k-means to about N targets (default: 1000000; 4 KB of memory each at 1024 channels)",
    )
    parser.add_argument(
        "--no-dump", action="store_true", help="make only the clusters: the teacher will run in training"
    )
    parser.add_argument("--estimate", action="store_true", help="report disk space and time, and stop")
    parser.add_argument("--verify", action="store_true", help="compare files with their checksums, and stop")
    parser.add_argument(
        "--precision",
        default="auto",
        help="of the teacher: float32, bfloat16, float16, or auto: bfloat16 on GPUs and CPUs that have it in "
        "hardware, else float32 (default: auto)",
    )


def run_teacher(args: argparse.Namespace) -> int:
    """Report disk space and time, then make the targets and clusters."""
    check_paths(args.data)
    from av_ssl.targets.speech_teacher import TeacherSpec
    from av_ssl.targets.teacher_dump import TeacherPlan, dump_teacher, estimate_teacher, verify_teacher
    from av_ssl.targets.teacher_targets import POSITIONS, SETTINGS

    if args.verify:
        print(f"{args.out}: {verify_teacher(args.out)} shards agree with their checksums")
        return 0
    settings = args.out / SETTINGS
    if args.precision == "auto" and settings.exists():  # as the folder was begun
        args.precision = read_json(settings, f"delete {args.out}").get("precision", args.precision)
    model = str(Path(args.model).absolute()) if Path(args.model).is_dir() else args.model
    positions = args.out.absolute() / POSITIONS if args.remove_position else None
    plan = TeacherPlan(
        data=args.data.absolute(),
        out=args.out.absolute(),
        splits=tuple(dict.fromkeys(args.splits)),
        source=TeacherSpec(
            model, args.layers, args.norm, args.combine, args.device, args.precision, positions
        ),
        clusters=args.clusters,
        fit_targets=args.fit_targets,
        dump=not args.no_dump,
        shards=args.shards,
        seed=args.seed,
    )
    where = job_options(args)
    estimate = estimate_teacher(plan, where)
    if estimate.clips:
        print(estimate, flush=True)
        estimate.check()
    if args.estimate:
        return 0
    made = dump_teacher(plan, where)
    print(
        f"{plan.out}: {made['dim']} channels, {made['per_frame']} targets a video frame; {made['clusters']} "
        f"clusters of {made['fitted_to_targets']} targets, inertia {made['inertia']:.4g} "
        f"({made['inertia'] / made['dim']:.3f} a channel)"
    )
    return 0


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {split}.tsv")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train", "valid"],
        help="k-means is fitted to the first (default: train valid)",
    )
    parser.add_argument("--clusters", metavar="K", type=positive, required=True, help="number of clusters")
    parser.add_argument("--seed", type=not_negative, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the model (default: cpu)"
    )
    add_shard_arguments(parser)
    add_job_arguments(parser)


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w-]+", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, - and _, not {text!r}")
    return text


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {value}")
    return value
