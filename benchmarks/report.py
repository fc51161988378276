"""Run every benchmark that this machine can, and write their tables to benchmarks/README.md.

    python benchmarks/report.py [FILE] [--word-times MODEL DATA SUBSET ALIGNMENTS]      (or: make benchmarks)

Each section has its command, and the file the commit and the machine.  The file is written after every
section, so that an interrupted run leaves what it has.  Recordings are clips of one GRID speaker where they
are in the folder that the variable AV_SSL_TEST_DATA names, or beside the repository.
"""

from __future__ import annotations

import argparse
import os
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
hold; figures of two machines do not compare. What each script measures is said at its top. Cores of a
virtual machine change their speed: a training step is compared with one as shipped just before it.

`benchmarks/gpu.sh` is for a machine with an NVIDIA GPU: correctness, then tables of every method, in under
ten minutes. It has not been run on a GPU yet, only on a CPU at tiny sizes.
"""
DATA = Path(os.environ.get("AV_SSL_TEST_DATA", HERE.parents[1] / "shared" / "data"))


@dataclass(frozen=True)
class Benchmark:
    """A script, its options, and what to look at in its table."""

    title: str
    command: list[str]
    ratio: str
    threads: int = 1
    on_gpu: bool = False
    """Whether the script has ``--device``."""


def benchmarks(cores: int, gpu: bool, word_times: list[str] | None) -> list[Benchmark]:
    steps = "--steps 10 --compile --frames 1000" if gpu else "--steps 7 --frames 250"
    workers = sorted({1, min(2, cores), cores})
    step = "Each economy switched off in turn, in pairs with a step as shipped; share of the matrix peak."
    decoding = "--clips 16" if gpu else "--clips 2 --beams 1 10 --repeats 1"
    clips = sorted(map(str, (DATA / "grid" / "videos" / "s1").glob("*.mp4")))
    talkers = [str(min(folder.glob("*.mp4"))) for folder in sorted((DATA / "grid" / "videos").glob("s*"))]
    chosen = [
        Benchmark("A training step, float32", f"training_step.py {steps}".split(), step, cores, True),
        Benchmark(
            "A training step, bf16", f"training_step.py {steps} --dtype bfloat16".split(), step, cores, True
        ),
        Benchmark(
            "The data path",
            f"data_path.py --clips 32 --epochs 4 --workers {' '.join(map(str, workers))}".split(),
            "Frames a second of one worker, against those of the training step.",
        ),
        Benchmark(
            "Cropping",
            ["cropping.py", *talkers],
            "The first clip of each talker; against decoding alone, and against dlib's pipeline.",
        ),
        Benchmark(
            "Clustering",
            ["clustering.py", "--clips", "2", "--frames", "8000", "--dim", "128", "--clusters", "100"],
            "k-means with fewer starts, against twenty.",
            on_gpu=True,
        ),
        Benchmark(
            "Decoding",
            f"decoding.py {decoding}".split(),
            "Seconds of work a second of speech, by search.",
            cores,
            True,
        ),
        Benchmark(
            "From a recording to text",
            ["realtime.py", *clips, "--precisions", "bfloat16", "float32"],
            "How much faster than real time a recording is transcribed, and decoding alone.",
            cores,
        ),
    ]
    if word_times:
        command = ["word_times.py", *word_times]
        chosen.append(Benchmark("Times of words", command, "Milliseconds; at most 80 are wanted.", cores))
    return chosen


def commit() -> str:
    """The commit of the working copy, with a remark if files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = ", with changes that are not committed" if git("status", "--porcelain", "-uno") else ""
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + changed


def section(benchmark: Benchmark, gpu: bool) -> tuple[str, bool]:
    """Markdown of a benchmark that is run here, and whether it succeeded."""
    script, *options = [*benchmark.command, *(["--device", "cuda"] if gpu and benchmark.on_gpu else [])]
    # Waiting threads leave the cores to others, as in av-ssl transcribe.
    variables = {"OMP_NUM_THREADS": str(benchmark.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **variables}
    words = [sys.executable, str(HERE / script), *options]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    table = run.stdout.strip()
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        table += f"\n\nStopped with exit status {run.returncode}: `{reason}`"
    settings = " ".join(f"{key}={value}" for key, value in variables.items())
    shown = f"    {settings} python benchmarks/{' '.join([script, *short(options)])}"
    return f"\n## {benchmark.title}\n\n{shown}\n\n{benchmark.ratio}\n\n{table.strip()}\n", not run.returncode


def short(options: list[str]) -> list[str]:
    """Options without paths of this machine: clips become ``GRID/s1/*.mp4``, others their names."""
    clips = [option for option in options if option.endswith(".mp4")]
    others = [Path(option).name for option in options if option not in clips]
    talkers = {Path(clip).parent.name for clip in clips}
    shown = [f"GRID/{'s1' if len(talkers) == 1 else 's*'}/*.mp4"] if clips else []
    return [*shown, *others]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run all benchmarks and write their tables to a file.")
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "README.md")
    parser.add_argument(
        "--word-times",
        nargs=4,
        metavar=("MODEL", "DATA", "SUBSET", "ALIGNMENTS"),
        help="also measure word times, see word_times.py",
    )
    args = parser.parse_args()
    file = args.file
    gpu = torch.cuda.is_available()
    text = INTRODUCTION + f"\n- commit {commit()}, {date.today()}\n- {machine('cuda' if gpu else 'cpu')}\n"
    load = f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    text += f"- load average at the start: {load}; on a busy machine, times of the clock are too long\n"
    if not gpu:
        text += "- no GPU was available: these figures say nothing about GPUs\n"
    succeeded = True
    for benchmark in benchmarks(os.cpu_count() or 1, gpu, args.word_times):
        print(f"{benchmark.title} ...", flush=True)
        part, right = section(benchmark, gpu)
        succeeded &= right
        text += part
        write_atomically(file, text.encode())
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
