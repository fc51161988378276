"""fairseq's stock commands for tests, each in a process of its own that does not import torch again.

A fork server imports torch, fairseq and hydra once; every command runs in a fork of it, with registries as
fresh as in a new interpreter.  ``tests/compat`` starts real interpreters, which shows that this is no
different for a user.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from av_ssl_fairseq_hook import mistakes

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = REPOSITORY / "av_ssl"
TIMEOUT = 300
COMMANDS = {
    "fairseq-hydra-train": "fairseq_cli.hydra_train",
    "fairseq-train": "fairseq_cli.train",
    "fairseq-generate": "fairseq_cli.generate",
    "fairseq-validate": "fairseq_cli.validate",
    "fairseq-preprocess": "fairseq_cli.preprocess",
    "av-ssl": "av_ssl.cli.main",
}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [*list(COMMANDS.values())[:-1], "sentencepiece", "soundfile", "cv2", "torch._dynamo"]
)


def stock(*words: object, expect: int = 0, folder: Path | str = "/") -> str:
    """Run a command; its output, both streams together.

    Args:
        words: the command and its arguments.
        expect: 0, or another number for a command that must fail.
        folder: that it runs in.
    """
    command, *arguments = map(str, words)
    if command not in COMMANDS:
        return run_interpreter([command, *arguments], expect, folder)
    status, output = run_for(TIMEOUT, command, *arguments, folder=folder)
    assert status is not None, f"{command} did not end in {TIMEOUT} s\n{output[-4000:]}"
    assert (status == 0) == (expect == 0), output[-4000:]
    return output


def run_for(
    seconds: float,
    *words: object,
    folder: Path | str = "/",
    largest_file: int = -1,
    environment: Mapping[str, str] | None = None,
) -> tuple[int | None, str]:
    """Run a command of ``COMMANDS`` and kill what is left of it after so many seconds.

    Returns its exit status, None if it was killed, and its output.  No file can grow beyond ``largest_file``
    bytes, as if the disk were full; -1: no bound.  ``environment`` is added to that of this process.
    """
    variables = {**os.environ, **(environment or {})}
    command, *arguments = map(str, words)
    with TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        process = SERVER.Process(
            target=_run, args=(command, arguments, str(folder), str(log), variables, largest_file)
        )
        process.start()
        process.join(seconds)
        alive = process.is_alive()
        with contextlib.suppress(ProcessLookupError):  # its data workers end with it
            os.killpg(process.pid, signal.SIGKILL)
        if alive:
            process.kill()  # it may not have its own group yet
        process.join()
        return None if alive else process.exitcode, log.read_text(errors="replace") if log.exists() else ""


def run_interpreter(words: list[str], expect: int, folder: Path | str) -> str:
    """Run a program that the fork server does not know, such as a script that calls stock commands."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=TIMEOUT, env=environment, cwd=folder, check=False
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == (expect == 0), output[-4000:]
    return output


def _run(
    command: str, arguments: list[str], folder: str, log: str, environment: dict[str, str], largest_file: int
) -> None:
    """In the fork: become the command."""
    os.setsid()  # the head of a process group of its own
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment, OMP_NUM_THREADS="1")
    os.chdir(folder)
    # A daemon may have no children, but data workers are some.
    multiprocessing.current_process()._config.pop("daemon", None)  # type: ignore[attr-defined]
    sys.argv = [command, *arguments]
    if largest_file >= 0:  # Python ignores the signal, so that writing fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    mistakes.report_in_one_line()  # at the import of fairseq, which was done by the server
    status = 0
    try:
        module = importlib.import_module(COMMANDS[command])
        status = getattr(module, "cli_main", None) or module.main
        status = status() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
