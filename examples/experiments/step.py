"""Run one step of an experiment. The Makefile that ``run.py`` writes calls it, in the output folder.

    python step.py [--threads N] done/NAME commands/NAME.sh done/EARLIER... [--updates N] [--result FOLDER]

Runs ``commands/NAME.sh``, logs into ``logs/NAME.log``, reports progress, and notes in ``done/NAME`` how long
it took. A step that was killed resumes from what its folder holds. If its command or an earlier step has
changed since, the folder is deleted first: fairseq would resume from a checkpoint of other settings.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPORT_EVERY = 30
"""Seconds between two lines of progress."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("done", type=Path, help="where it is noted that the step has ended")
    add("script", type=Path)
    add("earlier", type=Path, nargs="*", help="notes of the steps whose results are read")
    add("--updates", type=int, default=0, help="of a training")
    add("--result", type=Path, help="what it makes, and resumes from")
    add("--threads", type=int, default=1, help="of OpenMP and torch (%(default)s)")
    args = parser.parse_args()
    done, started, log = args.done, Path("started", args.done.name), Path("logs", f"{args.done.name}.log")
    for path in (done, started, log):
        path.parent.mkdir(exist_ok=True)
    content = [path.read_text() for path in (args.script, *args.earlier)]
    inputs = hashlib.sha256("\0".join(content).encode()).hexdigest()
    if done.is_file() and json.loads(done.read_text())["inputs"] == inputs:
        done.touch()  # newer files with the content of before
        return
    if args.result and not (started.is_file() and started.read_text() == inputs):
        shutil.rmtree(args.result, ignore_errors=True)
    done.unlink(missing_ok=True)
    started.write_text(inputs)
    begun = time.time()
    run(args.script, log, args.updates, args.threads)
    script, ended = hashlib.sha256(args.script.read_bytes()).hexdigest(), time.time()
    note = {"inputs": inputs, "script": script, "seconds": round(ended - begun, 1), "ended": ended}
    done.write_text(json.dumps({**note, "version": version()}) + "\n")
    started.unlink()


def run(script: Path, log: Path, updates: int, threads: int) -> None:
    """Run the shell file; end this program with the end of the log if it fails."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the command is ended, too
    begun, name = time.time(), script.stem
    say(name, "started")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-e", str(script)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            while True:
                try:
                    status = process.wait(REPORT_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    say(name, progress(log, updates, time.time() - begun))
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            sys.exit(f"{name}: stopped; run it again to resume")
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        sys.exit(f"{tail}\n{name} failed (exit status {status}); the whole log: {log.resolve()}")
    say(name, f"done in {time.time() - begun:.0f} s")


def say(name: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {name}: {what}", flush=True)


def progress(log: Path, updates: int, seconds: float) -> str:
    """Updates done and the time left; of other commands the last line of the log."""
    text = log.read_text(errors="replace")
    if not updates:
        return re.split(r"[\r\n]+", text.strip())[-1][:80] or "running"
    done = [int(number) for number in re.findall(r'"num_updates": "(\d+)"', text)]
    if not done:
        return "starting"
    # A resumed training did its first updates in another run.
    here = done[-1] - done[0]
    left = f", about {seconds * (updates - done[-1]) / here / 60:.0f} min left" if here else ""
    return f"{done[-1]} of {updates} updates{left}"


def version() -> str:
    """The commit of this repository; "-dirty" if files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "no commit"
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


if __name__ == "__main__":
    main()
