"""What the benchmarks share: the machine in words, and times."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CPUINFO = Path("/proc/cpuinfo")


def machine(device: str) -> str:
    """Processor or GPU, threads, and versions."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    threads = f"{torch.get_num_threads()} threads of {torch.multiprocessing.cpu_count()} cores"
    return f"{name}, {threads}, Python {platform.python_version()}, torch {torch.__version__}"


def processor() -> str:
    """The processor's name, and whether it has AMX, which makes bf16 several times as fast."""
    if not CPUINFO.exists():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in CPUINFO.read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    amx = " with AMX" if "amx_bf16" in facts.get("flags", "").split() else ""
    return facts.get("model name", platform.machine()) + amx


def median_time(run: Callable[[], Any], device: str, repeats: int, warmup: int = 1) -> float:
    """Seconds of a run, after ``warmup`` runs that do not count."""
    return statistics.median(times(run, device, warmup + repeats)[warmup:])


def times(run: Callable[[], Any], device: str, repeats: int) -> list[float]:
    """Seconds of each run."""
    found = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return found


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
