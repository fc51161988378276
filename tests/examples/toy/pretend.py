"""What jobs leave that have ended, without running them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from experiment import Experiment
from jobs import Job, Runner
from methods import Method

LOG = '[x][train][INFO] - {"epoch": 1, "train_wpb": "500", "train_num_updates": "12"}\n'


def finish_jobs(runner: Runner, jobs: Iterable[Job], version: str = "commit abc") -> None:
    """Each took ten seconds, each training 12 updates of 500 frames."""
    for job in jobs:
        runner.log(job).write_text(LOG)
        mark = {"fingerprint": job.fingerprint(), "seconds": 10.0, "version": version}
        runner.mark(job).write_text(json.dumps(mark))


def finish(
    experiment: Experiment, runner: Runner, method: Method, rate: float, version: str = "commit abc"
) -> None:
    """Everything of a method, with one word error rate in all conditions."""
    jobs = experiment.pretraining_jobs([method]) + experiment.finetuning_jobs([method])
    finish_jobs(runner, jobs + experiment.decoding_jobs([method]), version)
    for condition in method.conditions:
        folder = experiment.results(method, condition)
        folder.mkdir(parents=True)
        (folder / "generate-test.txt").write_text(f"WER: {rate}\n")
