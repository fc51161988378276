"""How far a speech teacher's targets move in bfloat16, and what it costs.

    python benchmarks/teacher_precision.py MODEL DATA [--split valid] [--clips 8]

MODEL is a folder of a Hugging Face model, or its name if it is in the cache. Prints the seconds of CPU time a
clip in float32 and bfloat16, on one thread, and for each layer the norm of the difference of the targets,
normalised over the clip, in percent of their norm.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from av_ssl.layout import Clip, read_manifest
from av_ssl.targets.speech_teacher import TeacherSpec


def run(spec: TeacherSpec, clips: list[Clip]) -> tuple[np.ndarray, float]:
    """Targets ``[N, layers * C]`` of all clips, and seconds of CPU time a clip."""
    teacher = spec.open()
    teacher.of(clips[0])  # the first one pays for allocations
    begun = time.process_time()
    targets = np.concatenate([teacher.of(clip) for clip in clips])
    return targets, (time.process_time() - begun) / len(clips)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--clips", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = list(read_manifest(args.data / f"{args.split}.tsv"))[: args.clips]
    spec = TeacherSpec(args.model, layers="all", combine="stack", precision="float32")
    layers = spec.open().layers
    exact, seconds = run(spec, clips)
    moved, fast = run(replace(spec, precision="bfloat16"), clips)
    print(f"seconds a clip: float32 {seconds:.3f}, bfloat16 {fast:.3f}, ratio {seconds / fast:.1f}")
    for layer, one, other in zip(
        layers, np.split(exact, len(layers), 1), np.split(moved, len(layers), 1), strict=True
    ):
        print(f"layer {layer}: {100 * np.linalg.norm(other - one) / np.linalg.norm(one):.1f} %")


if __name__ == "__main__":
    main()
