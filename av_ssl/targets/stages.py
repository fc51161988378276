"""One stage of a long job: the shards that are left to do, with a bar that shows them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from av_ssl.cluster import ClusterOptions, run_shards

Job = TypeVar("Job")
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

    def __call__(self, text: str, function: Callable[[Job], Any], jobs: Sequence[Job], total: int) -> None:
        """Call `function` with each of the jobs that are left of `total`; says nothing where none is.

        Raises DataError when some fail, see `av_ssl.cluster.run_shards`.
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
