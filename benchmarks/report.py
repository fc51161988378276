"""Run every benchmark that this machine can, and write their tables to benchmarks/README.md.

    python benchmarks/report.py [FILE]        (or: make benchmarks)

Each section has its command, and the file the commit and the machine.  The file is written after every
section, so that an interrupted run leaves what it has.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from timing import machine

from av_ssl.io import write_atomically

HERE = Path(__file__).resolve().parent
INTRODUCTION = """# Benchmarks

`make benchmarks` wrote this file. Every table is from one run on one machine, so that ratios within a table
hold; figures of two machines do not compare. What each script measures is said at its top.
"""


@dataclass(frozen=True)
class Benchmark:
    """A script, its options, and what to look at in its table."""

    title: str
    command: str
    ratio: str
    threads: int = 1
    on_gpu: bool = False
    """Whether the script has ``--device``."""


def benchmarks(cores: int, gpu: bool) -> list[Benchmark]:
    steps = "--steps 10 --compile --frames 1000" if gpu else "--steps 2 --frames 318"
    workers = sorted({1, min(2, cores), cores})
    step = "Each economy switched off in turn, against the step as shipped; the share of the matrix peak."
    return [
        Benchmark("A training step, float32", f"training_step.py {steps}", step, cores, True),
        Benchmark("A training step, bf16", f"training_step.py {steps} --dtype bfloat16", step, cores, True),
        Benchmark(
            "The data path",
            f"data_path.py --epochs 6 --workers {' '.join(map(str, workers))}",
            "Frames a second of one worker, against those of the training step.",
        ),
        Benchmark("Cropping", "cropping.py", "Against decoding alone, and against dlib's pipeline."),
        Benchmark("Clustering", "clustering.py", "k-means with fewer starts, against twenty.", 1, True),
        Benchmark("Decoding", "decoding.py", "Seconds of work a second of speech, by search.", cores, True),
    ]


def commit() -> str:
    """The commit of the working copy, with a remark if files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = ", with changes that are not committed" if git("status", "--porcelain", "-uno") else ""
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + changed


def section(benchmark: Benchmark, gpu: bool) -> tuple[str, bool]:
    """Markdown of a benchmark that is run here, and whether it succeeded."""
    command = benchmark.command + (" --device cuda" if gpu and benchmark.on_gpu else "")
    script, *options = shlex.split(command)
    environment = {**os.environ, "OMP_NUM_THREADS": str(benchmark.threads)}
    words = [sys.executable, str(HERE / script), *options]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    table = run.stdout.strip()
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        table += f"\n\nStopped with exit status {run.returncode}: `{reason}`"
    shown = f"    OMP_NUM_THREADS={benchmark.threads} python benchmarks/{command}"
    return f"\n## {benchmark.title}\n\n{shown}\n\n{benchmark.ratio}\n\n{table.strip()}\n", not run.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Run all benchmarks and write their tables to a file.")
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "README.md")
    file = parser.parse_args().file
    gpu = torch.cuda.is_available()
    text = INTRODUCTION + f"\n- commit {commit()}, {date.today()}\n- {machine('cuda' if gpu else 'cpu')}\n"
    if not gpu:
        text += "- no GPU was available: these figures say nothing about GPUs\n"
    succeeded = True
    for benchmark in benchmarks(os.cpu_count() or 1, gpu):
        print(f"{benchmark.title} ...", flush=True)
        part, right = section(benchmark, gpu)
        succeeded &= right
        text += part
        write_atomically(file, text.encode())
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
