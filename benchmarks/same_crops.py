"""Whether the same videos give the same crops, byte for byte, on a busy machine.

    python benchmarks/same_crops.py VIDEO [VIDEO ...] [--rounds 3] [--load 4]

Crops the videos several times, each round in another order and in two processes, while ``--load`` further
processes keep the cores busy. Prints how many crops differ between rounds; ends with 1 if any does.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from av_ssl.media.crop_folder import crop_folder
from av_ssl.media.sources import ClipSource

PROCESSES = 2


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether cropping is reproducible under load.")
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="times that all are cropped (default: 3)")
    parser.add_argument("--load", type=int, default=4, help="processes beside it (default: 4)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=_work, daemon=True) for _ in range(args.load)]
    for process in busy:
        process.start()
    rounds = [_crop(args.videos, seed) for seed in range(args.rounds)]
    for process in busy:
        process.kill()
    names = rounds[0]
    differing = [name for name in names if len({result[name] for result in rounds}) > 1]
    print(
        f"{len(differing)} of {len(names)} files differ in {args.rounds} rounds under {args.load} busy processes"
    )
    for name in differing:
        print(f"  {name}")
    return 1 if differing else 0


def _crop(videos: list[Path], seed: int) -> dict[str, str]:
    """SHA-256 of every file of a run."""
    clips = {f"{number:03d} {path.stem}": ClipSource(path) for number, path in enumerate(videos)}
    order = random.Random(seed).sample(sorted(clips), len(clips))
    with tempfile.TemporaryDirectory() as folder:
        results = crop_folder({name: clips[name] for name in order}, Path(folder), workers=PROCESSES).results
        failed = [f"{name}: {result.reason}" for name, result in results.items() if not result.ok]
        if failed:
            raise SystemExit("\n".join(failed))
        files = sorted(path for kind in ("video", "audio") for path in Path(folder, kind).iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _work() -> None:
    """Arithmetic with wide registers, for ever."""
    values = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    while True:
        values = np.tanh(values @ values / 512)


if __name__ == "__main__":
    sys.exit(main())
