"""Commands of the demo run side by side, with progress, logs, and a memory of what is finished."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


@dataclass(frozen=True)
class Job:
    """A command; training says how many updates it has, others show a progress bar of their own."""

    name: str
    command: tuple[str, ...]
    threads: int = 1
    updates: int = 0
    own_progress: bool = False


class Runner:
    """Runs jobs and skips those that an earlier run finished with the same command and settings.

    Args:
        out: logs/ and finished/ are made there.
        settings: changes to it make finished jobs run again.
    """

    def __init__(self, out: Path, settings: bytes) -> None:
        self.out, self.settings = out, settings
        self.seconds: dict[str, float] = {}
        (out / "logs").mkdir(parents=True, exist_ok=True)
        (out / "finished").mkdir(exist_ok=True)

    def run(self, title: str, jobs: list[Job], at_once: int = 1) -> None:
        """Run the jobs, ``at_once`` at a time; the first failure ends everything with the end of its log."""
        record = self.out / "finished" / f"{re.sub(r'[^a-z]+', '_', title.lower())}.seconds"
        waiting = [job for job in jobs if not self.is_finished(job)]
        if waiting:
            started = time.time()
            self.run_all(title, waiting, at_once)
            record.write_text(str(time.time() - started))
        else:
            print(f"{title}: finished before")
        self.seconds[title] = float(record.read_text()) if record.is_file() else 0.0

    def run_all(self, title: str, waiting: list[Job], at_once: int) -> None:
        total = sum(job.updates or 1 for job in waiting)
        hidden = all(job.own_progress for job in waiting)
        unit = " updates" if any(job.updates for job in waiting) else " jobs"
        if hidden:
            print(title)
        done = 0
        running: dict[Job, subprocess.Popen[bytes]] = {}
        with tqdm(total=total, desc=title, unit=unit, mininterval=1, disable=hidden) as progress:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    running[job] = self.start(job)
                time.sleep(0.2)
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    self.finish(job, running.pop(job).returncode)
                    done += job.updates or 1
                progress.update(done + sum(self.updates_done(job) for job in running) - progress.n)

    def start(self, job: Job) -> "subprocess.Popen[bytes]":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = {
            **os.environ,
            "PATH": path,
            "OMP_NUM_THREADS": str(job.threads),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log(job).open("wb") as log:
            log.write(f"$ {shlex.join(job.command)}\n".encode())
            log.flush()
            return subprocess.Popen(
                job.command,
                stdout=log,
                stderr=None if job.own_progress else log,
                env=environment,
                cwd=self.out,
            )

    def finish(self, job: Job, status: int) -> None:
        if status:
            tail = "\n".join(self.log(job).read_text(errors="replace").splitlines()[-25:])
            sys.exit(f"\n{job.name} failed (exit status {status}):\n{tail}\nThe whole log: {self.log(job)}")
        self.mark(job).write_text(self.fingerprint(job))

    def is_finished(self, job: Job) -> bool:
        return self.mark(job).is_file() and self.mark(job).read_text() == self.fingerprint(job)

    def fingerprint(self, job: Job) -> str:
        return hashlib.sha256("\0".join(job.command).encode() + self.settings).hexdigest()

    def updates_done(self, job: Job) -> int:
        found = re.findall(rb'"num_updates": "(\d+)"', self.log(job).read_bytes()) if job.updates else []
        return int(found[-1]) if found else 0

    def mark(self, job: Job) -> Path:
        return self.out / "finished" / job.name

    def log(self, job: Job) -> Path:
        return self.out / "logs" / f"{job.name}.log"
