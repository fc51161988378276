"""Argument types and defaults shared by the sub-commands."""

from __future__ import annotations

import argparse
import os


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: str) -> int:
    """Processes of a long job on this machine: one a core; with `cuda` one a GPU, as each of them loads the
    model."""
    if device != "cuda":
        return available_cores()
    import torch  # needed by no other argument, and slow to import

    return torch.cuda.device_count() or available_cores()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def at_least_two(text: str) -> int:
    """A whole number of at least 2."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {value}")
    return value


def share_or_number(text: str) -> float:
    """A share from 0 to below 1, or a whole number from 1 on."""
    value = float(text)
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"must be a share below 1 or a whole number, not {value:g}")
    return value


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    """Into how many parts the clips of a split are worked on, and how many at a time."""
    parser.add_argument(
        "--shards",
        metavar="N",
        type=positive,
        help="parts of a split (default: one for 1000 clips, at least 16)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        help="processes, or jobs at a time on a cluster (default: one a core; with --device cuda one a GPU)",
    )
