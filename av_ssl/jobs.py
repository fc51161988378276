"""Long jobs: shards in local processes or on Slurm, which can be killed and started again.

:func:`run_isolated` gives jobs to processes one by one; a job that ends its process (a broken video can do
that inside a codec) does not stop the others, as it would with ``concurrent.futures``.

:func:`run_shards` runs one function on many shards, locally or through submitit, and :func:`run_missing` runs
it on those whose files are missing. The function is importable by name; shards and results are small and can
be pickled. It writes large results to files, atomically (:mod:`av_ssl.io`), so that a run that was killed
continues where it stopped.

On Slurm all machines share the file system and the Python environment. submitit keeps pickles in the log
folder and reads results from there, so nobody else may write into it. This path is tested with submitit's
local executor; it has not been run on a Slurm cluster.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from av_ssl.errors import DataError, optional_package
from av_ssl.io import ProgressBar, write_atomically

Job = TypeVar("Job")
Shard = TypeVar("Shard")
Result = TypeVar("Result")

# -- processes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crash:
    """Replaces the result of a job that raised an exception or whose process died.

    ``of_data``: the user's data is wrong, so there is no use in trying other jobs; ``log``: a file with the
    traceback or the output.
    """

    message: str
    of_data: bool = False
    log: Path | None = None


@dataclass
class _Worker(Generic[Job]):
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


def run_isolated(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[tuple[Job, Result | Crash], None, None]:
    """Run ``function(job)`` for each job in ``workers`` processes; yield job and result as they finish.

    ``function`` is importable by name, jobs are read only as they are needed, and closing the iterator ends
    the processes.
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
    with contextlib.suppress(BrokenPipeError):  # the process has died; `_receive` reports it
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


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- shards --------------------------------------------------------------------------------------------------

POLL_SECONDS = 2.0  # between looks at the jobs of a cluster
FAILURES_TOLERATED = 2  # more end a run: what fails so often fails everywhere


@dataclass(frozen=True)
class JobOptions:
    """Where shards run.

    Args:
        kind: ``local`` or ``slurm``.
        workers: local processes, or Slurm jobs at a time.  A single local worker is this process itself.
        partition, hours, cpus, gpus, memory_gb: of each Slurm job; None: the cluster's default.
        options: further settings of ``sbatch`` by name, such as ``account`` or ``qos``.
    """

    kind: str = "local"
    workers: int = 1
    partition: str | None = None
    hours: float = 24.0
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    options: dict[str, str] = field(default_factory=dict)


HERE = JobOptions()
"""This process alone."""


def run_missing(
    title: str,
    function: Callable[[Shard], Any],
    shards: Sequence[Shard],
    complete: Callable[[Shard], bool],
    where: JobOptions,
    logs: Path,
) -> None:
    """Run ``function`` on the shards that are not ``complete``, with a progress bar over all of them.

    Arguments and errors are those of :func:`run_shards`; nothing is shown if all shards are complete.
    """
    missing = [shard for shard in shards if not complete(shard)]
    if not missing:
        return
    done, total = len(shards) - len(missing), len(shards)
    with ProgressBar("shard", title) as bar:
        run_shards(function, missing, where, logs, lambda finished, _: bar.update(done + finished, total))


def run_shards(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    where: JobOptions,
    log_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
    """Run ``function(shard)`` for all shards; return the results in the order of the shards.

    Args:
        function: importable by name.
        shards: arguments, which can be pickled.
        where: to run.
        log_dir: folder for tracebacks ``shard_{index}.log`` and for the logs and pickles of submitit.
        progress: called as ``progress(done, total)`` at the start and after every shard.

    Raises DataError if some shards failed; the others are finished first, but a DataError or more
    than two failures end the run at once.
    """
    log_dir = log_dir.absolute()  # jobs need not run in this folder
    jobs = list(enumerate(shards))
    process = partial(_run, function, log_dir)
    results: dict[int, Result] = {}
    failures: dict[int, Crash] = {}
    progress(0, len(jobs))
    if where.kind == "slurm":
        run = _run_on_slurm(process, jobs, where, log_dir)
    else:
        run = _run_locally(process, jobs, where.workers)
    with contextlib.closing(run) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, Crash):
                if outcome.of_data:
                    raise DataError(outcome.message)
                failures[index] = outcome
                if len(failures) > FAILURES_TOLERATED:
                    break
            else:
                results[index] = outcome
                progress(len(results), len(jobs))
    if failures:
        lines = [
            f"  shard {index}: {crash.message}" + (f"; see {crash.log}" if crash.log else "")
            for index, crash in failures.items()
        ]
        raise DataError(
            f"{len(failures)} of {len(jobs)} shards failed. Finished shards are kept; the same command "
            "continues with the others:\n" + "\n".join(lines)
        )
    return [results[index] for index in range(len(jobs))]


_Job = tuple[int, Any]
"""Index of a shard, and the shard."""
_Outcomes = Generator[tuple[int, Any], None, None]
"""Index of a shard, and its result or Crash."""


def _run(function: Callable[[Any], Any], log_dir: Path, job: _Job) -> Any:
    """Process one shard; an error is returned, so that one shard does not stop the others."""
    index, shard = job
    try:
        return function(shard)
    except DataError as error:  # its text is complete
        return Crash(str(error), of_data=True)
    except Exception as error:  # reported with its traceback when the others are done
        log = log_dir / f"shard_{index}.log"
        write_atomically(log, traceback.format_exc().encode())
        return Crash(f"{type(error).__name__}: {error}", log=log)


def _run_locally(process: Callable[[_Job], Any], jobs: Sequence[_Job], workers: int) -> _Outcomes:
    if min(workers, len(jobs)) <= 1:
        yield from ((job[0], process(job)) for job in jobs)
        return
    with contextlib.closing(run_isolated(process, jobs, min(workers, len(jobs)))) as outcomes:
        for (index, _), outcome in outcomes:
            yield index, outcome


def _run_on_slurm(
    process: Callable[[_Job], Any], jobs: Sequence[_Job], where: JobOptions, log_dir: Path
) -> _Outcomes:
    if not jobs:
        return
    executor = _slurm_executor(where, log_dir)
    waiting = dict(enumerate(executor.map_array(process, jobs)))
    try:
        while waiting:
            for index in [index for index, submitted in waiting.items() if submitted.done()]:
                yield index, _slurm_outcome(waiting.pop(index))
            if waiting:
                time.sleep(POLL_SECONDS)
    finally:
        for submitted in waiting.values():
            submitted.cancel(check=False)


def _slurm_executor(where: JobOptions, log_dir: Path) -> Any:
    submitit = optional_package("submitit", "slurm", "--cluster slurm: ")
    try:
        executor = submitit.AutoExecutor(os.fspath(log_dir / "slurm"), cluster="slurm")
    except RuntimeError as error:  # there is no srun
        raise DataError(
            f"--cluster slurm: {error}; start this on a machine of the cluster, or use --cluster local"
        ) from error
    executor.update_parameters(
        name="av_ssl",
        timeout_min=round(60 * where.hours),
        cpus_per_task=where.cpus,
        gpus_per_node=where.gpus,
        slurm_array_parallelism=where.workers,
        slurm_additional_parameters=where.options,
        **({"slurm_partition": where.partition} if where.partition else {}),
        **({"mem_gb": where.memory_gb} if where.memory_gb else {}),
    )
    return executor


def _slurm_outcome(submitted: Any) -> Any:
    from submitit.core.utils import UncompletedJobError  # an optional extra

    try:
        return submitted.result()
    except UncompletedJobError:  # killed: out of memory, out of time, lost machine
        return Crash(f"job {submitted.job_id} died ({submitted.state})", log=submitted.paths.stderr)
