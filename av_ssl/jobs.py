"""Processes that work through a list of jobs; a job that kills its process does not stop the others.

`concurrent.futures` gives up the whole pool when one process dies, which a broken video can bring about
inside a codec.

One function over many shards: in local processes, or as jobs of a Slurm cluster through `submitit`.

What a command needs:

    add_cluster_arguments(parser)       # cli.cluster_options: --cluster and --slurm-...; --workers is its own
    cluster = cluster_options(args)
    with ProgressBar("shard") as bar:
        results = run_shards(function, shards, cluster, log_dir, bar.update)

`function(shard)` is importable by name and shards and results are small and can be pickled; large results go
into files. A shard writes them under a temporary name and renames them at its end, and the command leaves out
the shards whose files are there: so a run that was killed goes on, and one that failed keeps what it has.

On Slurm all machines see the same file system and the same Python environment. submitit keeps pickles in
`log_dir` and reads results from there: let nobody else write into it. The path through submitit is tested
with submitit's own local executor; it has not been run on a Slurm cluster.

One stage of a long job: the shards that are left to do, with a bar that shows them all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar, Union

from av_ssl.errors import DataError
from av_ssl.io import write_atomically

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


Shard = TypeVar("Shard")

POLL_SECONDS = 2.0  # between looks at the jobs of a cluster
FAILURES_TOLERATED = 2  # more end a run: what fails so often fails everywhere


class ShardsFailedError(DataError):
    """Some shards could not be finished; the text names them, their errors and logs."""


@dataclass(frozen=True)
class ClusterOptions:
    """Where shards run.

    Args:
        kind: `local` or `slurm`.
        workers: processes here, or Slurm jobs at a time. A single local worker is this process itself.
        partition, hours, cpus, gpus, memory_gb: of each Slurm job; None leaves it to the cluster.
        options: further settings of `sbatch`, such as `account` or `qos`, by name.
    """

    kind: str = "local"
    workers: int = 1
    partition: str | None = None
    hours: float = 24.0
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    options: dict[str, str] = field(default_factory=dict)


def run_shards(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    cluster: ClusterOptions,
    log_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
    """Results of `function(shard)`, in the order of `shards`.

    Args:
        function: importable by name.
        shards: arguments, which can be pickled.
        cluster: where to run.
        log_dir: for tracebacks `shard_{index}.log`, and for the logs and pickles of submitit.
        progress: called as `progress(done, total)` at the start and after every shard.

    Raises ShardsFailedError, when shards have failed and the others have been given their chance: a DataError
    or more than two failures end the run at once.
    """
    log_dir = log_dir.absolute()  # jobs need not run in this folder
    jobs = [_Job(function, shard, index, log_dir) for index, shard in enumerate(shards)]
    run = _run_on_slurm if cluster.kind == "slurm" else _run_locally
    results: dict[int, Result] = {}
    failures: list[_Failure] = []
    progress(0, len(jobs))
    with contextlib.closing(run(jobs, cluster, log_dir)) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, _Failure):
                failures.append(outcome)
                if outcome.of_data or len(failures) > FAILURES_TOLERATED:
                    break
            else:
                results[index] = outcome.value
                progress(len(results), len(jobs))
    if failures:
        raise ShardsFailedError(_describe(failures, len(jobs)))
    return [results[index] for index in range(len(jobs))]


@dataclass(frozen=True)
class _Job(Generic[Shard, Result]):
    function: Callable[[Shard], Result]
    shard: Shard
    index: int
    log_dir: Path


@dataclass(frozen=True)
class _Done(Generic[Result]):
    value: Result


@dataclass(frozen=True)
class _Failure:
    index: int
    message: str
    of_data: bool = False  # the user's data, so that there is no use in trying the other shards
    log: Path | None = None


_Outcome = Union["_Done[Any]", _Failure]
_Outcomes = Generator[tuple[int, _Outcome], None, None]


def _run(job: _Job[Any, Any]) -> _Outcome:
    """Work of one process on one shard; its errors become a value, so that one does not stop the others."""
    try:
        return _Done(job.function(job.shard))
    except DataError as error:  # its text says it all
        return _Failure(job.index, str(error), of_data=True)
    except Exception as error:  # reported with its traceback by whoever waits for all shards
        log = job.log_dir / f"shard_{job.index}.log"
        write_atomically(log, traceback.format_exc().encode())
        return _Failure(job.index, f"{type(error).__name__}: {error}", log=log)


def _run_locally(jobs: Sequence[_Job[Any, Any]], cluster: ClusterOptions, log_dir: Path) -> _Outcomes:
    workers = min(cluster.workers, len(jobs))
    if workers <= 1:
        yield from ((job.index, _run(job)) for job in jobs)
        return
    with contextlib.closing(run_isolated(_run, jobs, workers)) as outcomes:
        for job, outcome in outcomes:
            if isinstance(outcome, Crash):
                yield job.index, _Failure(job.index, outcome.message)
            else:
                yield job.index, outcome


def _run_on_slurm(jobs: Sequence[_Job[Any, Any]], cluster: ClusterOptions, log_dir: Path) -> _Outcomes:
    if not jobs:
        return
    executor = _slurm_executor(cluster, log_dir)
    waiting = dict(enumerate(executor.map_array(_run, jobs)))
    try:
        while waiting:
            for index in [index for index, submitted in waiting.items() if submitted.done()]:
                yield index, _slurm_outcome(index, waiting.pop(index))
            if waiting:
                time.sleep(POLL_SECONDS)
    finally:
        for submitted in waiting.values():
            submitted.cancel(check=False)


def _slurm_executor(cluster: ClusterOptions, log_dir: Path) -> Any:
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise DataError("--cluster slurm: submitit is not installed; pip install 'av_ssl[slurm]'") from error
    try:
        executor = submitit.AutoExecutor(os.fspath(log_dir / "slurm"), cluster="slurm")
    except RuntimeError as error:  # there is no srun
        raise DataError(
            f"--cluster slurm: {error}; start this on a machine of the cluster, or take --cluster local"
        ) from error
    executor.update_parameters(
        name="av_ssl",
        timeout_min=round(60 * cluster.hours),
        cpus_per_task=cluster.cpus,
        gpus_per_node=cluster.gpus,
        slurm_array_parallelism=cluster.workers,
        slurm_additional_parameters=cluster.options,
        **({"slurm_partition": cluster.partition} if cluster.partition else {}),
        **({"mem_gb": cluster.memory_gb} if cluster.memory_gb else {}),
    )
    return executor


def _slurm_outcome(index: int, submitted: Any) -> _Outcome:
    from submitit.core.utils import UncompletedJobError

    try:
        return submitted.result()
    except UncompletedJobError:  # killed: out of memory, out of time, lost machine
        return _Failure(index, f"job {submitted.job_id} died ({submitted.state})", log=submitted.paths.stderr)


def _describe(failures: Sequence[_Failure], total: int) -> str:
    if failures[-1].of_data:
        return failures[-1].message
    lines = [
        f"  shard {failure.index}: {failure.message}" + (f"; see {failure.log}" if failure.log else "")
        for failure in failures
    ]
    return (
        f"{len(failures)} of {total} shards failed; those that finished are kept, and the same command goes "
        "on with the others:\n" + "\n".join(lines)
    )


Progress = Callable[[int, int], None]
Stage = Callable[[str], AbstractContextManager[Progress]]
"""Called with what begins; gives what is told how many shards are done, of how many."""


@dataclass(frozen=True)
class StageRunner:
    """Runs stages.

    Args:
        cluster: where shards run.
        logs: folder for tracebacks, and for what submitit writes.
        stage: told what begins and how far it is.
    """

    cluster: ClusterOptions
    logs: Path
    stage: Stage

    def __call__(
        self, text: str, function: Callable[[Shard], Any], jobs: Sequence[Shard], total: int
    ) -> None:
        """Call `function` with each of the jobs that are left of `total`; says nothing where none is.

        Raises DataError when some fail, see `av_ssl.jobs.run_shards`.
        """
        if not jobs:
            return
        done = total - len(jobs)
        with self.stage(text) as progress:
            run_shards(
                function,
                jobs,
                self.cluster,
                self.logs,
                lambda finished, _: progress(done + finished, total),
            )
