"""How far a speech teacher's targets move in bfloat16, what that saves, and how much of them is position.

    python benchmarks/speech_teacher.py MODEL DATA [--split valid] [--clips 60]

MODEL is a folder of a Hugging Face model, or its name if it is in the cache. Prints the seconds of CPU time a
clip in float32 and bfloat16, on one thread; then for each layer, normalised over the clip, the norm of the
difference in percent of the norm, and the share of the variance that is the mean of all clips at each
position (as long as the shortest clip).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from av_ssl.manifest import Clip, read_manifest
from av_ssl.targets.speech_teacher import TeacherSpec


def run(spec: TeacherSpec, clips: list[Clip]) -> tuple[list[np.ndarray], float]:
    """Targets ``[N, layers, C]`` of each clip, and seconds of CPU time a clip."""
    teacher = spec.open()
    teacher.of(clips[0])  # the first one pays for allocations
    begun = time.process_time()
    targets = [teacher.of(clip) for clip in clips]
    seconds = (time.process_time() - begun) / len(clips)
    return [each.reshape(len(each), len(teacher.layers), -1) for each in targets], seconds


def position_share(targets: list[np.ndarray]) -> np.ndarray:
    """By layer, from 0 to 1."""
    span = min(map(len, targets))
    stacked = np.stack([each[:span] - each[:span].mean(0) for each in targets])
    return np.square(stacked.mean(0)).sum((0, 2)) / np.square(stacked).mean(0).sum((0, 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--clips", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = list(read_manifest(args.data / f"{args.split}.tsv"))[: args.clips]
    spec = TeacherSpec(args.model, layers="all", combine="stack", precision="float32")
    layers = spec.open().layers
    exact, seconds = run(spec, clips)
    moved, fast = run(replace(spec, precision="bfloat16"), clips)
    print(f"seconds a clip: float32 {seconds:.3f}, bfloat16 {fast:.3f}, ratio {seconds / fast:.1f}")
    one, other = np.concatenate(exact), np.concatenate(moved)
    distance = np.linalg.norm(other - one, axis=(0, 2)) / np.linalg.norm(one, axis=(0, 2))
    for layer, change, position in zip(layers, distance, position_share(exact), strict=True):
        print(f"layer {layer}: bfloat16 moves {change:.1%}, position is {position:.0%}")


if __name__ == "__main__":
    main()
