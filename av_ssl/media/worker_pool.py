"""Processes that work through a list of jobs; a job that kills its process does not stop the others.

`concurrent.futures` gives up the whole pool when one process dies, which a broken video can bring about
inside a codec.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Crash:
    """Comes in place of a result: the job raised an exception or its process died."""

    message: str


@dataclass
class _Worker(Generic[Job]):
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


def run_isolated(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[tuple[Job, Result | Crash], None, None]:
    """Each job with `function(job)`, as they finish.

    `function` must be importable by name; `jobs` is read only as it is needed.
    Closing the iterator ends the processes.
    """
    queue = iter(jobs)
    crew: dict[Connection, _Worker[Job]] = {}

    def hire() -> None:
        job = next(queue, None)
        if job is not None:
            worker = _start(function)
            crew[worker.pipe] = worker
            _give(worker, job)

    try:
        for _ in range(workers):
            hire()
        while crew:
            for ready in wait(list(crew)):
                worker = crew[ready]  # type: ignore[index]
                job, result = worker.job, _receive(worker)
                if worker.process.is_alive() and (following := next(queue, None)) is not None:
                    _give(worker, following)
                else:
                    del crew[worker.pipe]
                    worker.pipe.close()
                    hire()
                assert job is not None
                yield job, result
    finally:
        for worker in crew.values():
            worker.process.kill()
            worker.process.join()


def _start(function: Callable[[Job], Result]) -> _Worker[Job]:
    # Not forked: a fork copies locks that threads of the parent may hold, and the other workers' pipes.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker[Job], job: Job) -> None:
    worker.job = job
    with contextlib.suppress(BrokenPipeError):  # the process has died; `_receive` says so
        worker.pipe.send(job)


def _receive(worker: _Worker[Job]) -> Result | Crash:
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return Crash(f"its process died (exit code {worker.process.exitcode})")


def _serve(function: Callable[[Job], Result], pipe: Connection) -> None:
    # Ctrl-C reaches the whole group; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        result: Result | Crash
        try:
            result = function(job)
        except Exception as error:  # one bad clip must not end the run; it is reported with its file
            result = Crash(f"{type(error).__name__}: {error}")
        try:
            pipe.send(result)
        except BrokenPipeError:
            return
