"""Commands run side by side, with progress, logs, and a memory of what is finished."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


@dataclass(frozen=True)
class Job:
    """A command; training says how many updates it has, others may show a progress bar of their own.

    Args:
        name: of its log.
        command: program and arguments.
        threads: for OpenMP and torch.
        updates: of a training.
        own_progress: stderr goes to the terminal.
        settings: files that it reads; a change to them makes it run again.
        after: the jobs whose results it reads; when one of them changes, it runs again.
        folder: what it goes on with after a kill; deleted before it runs with anything changed.
    """

    name: str
    command: tuple[str, ...]
    threads: int = 1
    updates: int = 0
    own_progress: bool = False
    settings: tuple[Path, ...] = ()
    after: "tuple[Job, ...]" = ()
    folder: Path | None = None

    def fingerprint(self) -> str:
        """A digest of all that the result depends on, the program's code aside."""
        parts = [*self.command, *(path.read_text() for path in self.settings)]
        parts += [job.fingerprint() for job in self.after]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Runner:
    """Runs jobs and skips those that an earlier run finished with the same command and settings.

    Args:
        out: working directory of the jobs; logs/, started/ and finished/ are made there.
        version: of the program, noted with what is finished.
    """

    def __init__(self, out: Path, version: str) -> None:
        self.out, self.version = out, version
        self.seconds: dict[str, float] = {}
        self.began: dict[str, float] = {}
        for name in ("logs", "started", "finished"):
            (out / name).mkdir(parents=True, exist_ok=True)

    def run(self, title: str, jobs: list[Job], at_once: int = 1) -> None:
        """Run the jobs, ``at_once`` at a time; the first failure ends everything with the end of its log."""
        record = self.out / "finished" / f"{re.sub(r'[^a-z0-9]+', '_', title.lower())}.seconds"
        waiting = [job for job in jobs if not self.is_finished(job)]
        if waiting:
            started = time.time()
            self.run_all(title, waiting, at_once)
            record.write_text(str(time.time() - started))
        else:
            print(f"{title}: finished before", flush=True)
        self.seconds[title] = float(record.read_text()) if record.is_file() else 0.0

    def run_all(self, title: str, waiting: list[Job], at_once: int) -> None:
        total = sum(job.updates or 1 for job in waiting)
        hidden = all(job.own_progress for job in waiting)
        unit = " updates" if any(job.updates for job in waiting) else " jobs"
        if hidden:
            print(title, flush=True)
        done = 0
        running: dict[Job, subprocess.Popen[bytes]] = {}
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends the jobs, too
        with tqdm(total=total, desc=title, unit=unit, mininterval=1, disable=hidden) as progress:
            try:
                while waiting or running:
                    while waiting and len(running) < at_once:
                        job = waiting.pop(0)
                        running[job] = self.start(job)
                    time.sleep(0.2)
                    for job in [job for job, process in running.items() if process.poll() is not None]:
                        self.finish(job, running.pop(job).returncode)
                        done += job.updates or 1
                    progress.update(done + sum(self.updates_done(job) for job in running) - progress.n)
            finally:
                for process in running.values():
                    process.terminate()
                signal.signal(signal.SIGTERM, before)

    def start(self, job: Job) -> "subprocess.Popen[bytes]":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = {
            **os.environ,
            "PATH": path,
            "OMP_NUM_THREADS": str(job.threads),
            "PYTHONUNBUFFERED": "1",
        }
        self.clear(job)
        self.began[job.name] = time.time()
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

    def clear(self, job: Job) -> None:
        """Delete what the job left under other settings: fairseq would go on from its checkpoint."""
        started = self.out / "started" / job.name
        fingerprint = job.fingerprint()
        if job.folder and not (started.is_file() and started.read_text() == fingerprint):
            shutil.rmtree(job.folder, ignore_errors=True)
        self.mark(job).unlink(missing_ok=True)
        started.write_text(fingerprint)

    def finish(self, job: Job, status: int) -> None:
        if status:
            tail = "\n".join(self.log(job).read_text(errors="replace").splitlines()[-25:])
            sys.exit(f"\n{job.name} failed (exit status {status}):\n{tail}\nThe whole log: {self.log(job)}")
        seconds = time.time() - self.began[job.name]
        mark = {"fingerprint": job.fingerprint(), "seconds": round(seconds, 1), "version": self.version}
        self.mark(job).write_text(json.dumps(mark) + "\n")

    def is_finished(self, job: Job) -> bool:
        return self.finished(job) is not None

    def finished(self, job: Job) -> tuple[float, str] | None:
        """Seconds that the job took, and the version that ran it; None: not finished with these settings."""
        try:
            mark = json.loads(self.mark(job).read_text())
            found = mark["fingerprint"] == job.fingerprint()
            return (float(mark["seconds"]), str(mark["version"])) if found else None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def updates_done(self, job: Job) -> int:
        found = re.findall(rb'"num_updates": "(\d+)"', self.log(job).read_bytes()) if job.updates else []
        return int(found[-1]) if found else 0

    def mark(self, job: Job) -> Path:
        return self.out / "finished" / job.name

    def log(self, job: Job) -> Path:
        return self.out / "logs" / f"{job.name}.log"
