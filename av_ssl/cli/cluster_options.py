"""Arguments that say where the shards of a long job run, shared by the commands that have some."""

from __future__ import annotations

import argparse

from av_ssl.cli.arguments import default_workers, positive
from av_ssl.cluster import ClusterOptions


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--cluster` and the options of Slurm jobs; `--workers` is up to the command."""
    group = parser.add_argument_group("where the work is done")
    group.add_argument(
        "--cluster",
        choices=("local", "slurm"),
        default="local",
        help="processes on this machine, or Slurm jobs, --workers of them at a time (default: local)",
    )
    group.add_argument("--slurm-partition", metavar="NAME", help="(default: the cluster's)")
    group.add_argument("--slurm-hours", metavar="H", type=float, default=24.0, help="a job (default: 24)")
    group.add_argument("--slurm-cpus", metavar="N", type=positive, default=1, help="a job (default: 1)")
    group.add_argument("--slurm-gpus", metavar="N", type=int, default=0, help="a job (default: 0)")
    group.add_argument("--slurm-memory", metavar="GB", type=float, help="a job (default: the cluster's)")
    group.add_argument(
        "--slurm-option",
        metavar="KEY=VALUE",
        type=_key_and_value,
        action="append",
        default=[],
        help="further setting of sbatch, e.g. account=speech; may be repeated",
    )


def cluster_options(args: argparse.Namespace) -> ClusterOptions:
    """From the arguments of `add_cluster_arguments` and `--workers`."""
    of_slurm = {name: getattr(args, f"slurm_{name}") for name in ("partition", "hours", "cpus", "gpus")}
    of_slurm |= {"memory_gb": args.slurm_memory, "options": dict(args.slurm_option)}
    workers = args.workers or default_workers(getattr(args, "device", "cpu"))
    return ClusterOptions(args.cluster, workers, **of_slurm)


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    return key, value
