"""Numbers out of what fairseq's commands leave, and what they were measured on."""

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from experiment import REPOSITORY, Experiment
from jobs import Job, Runner
from methods import Method
from stages import label_sets, label_stages


@dataclass(frozen=True)
class Cost:
    """Of pre-trainings: updates, real frames processed (25 a second), seconds of the commands."""

    updates: int = 0
    frames: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.updates + other.updates, self.frames + other.frames, self.seconds + other.seconds)


@dataclass(frozen=True)
class MethodCost:
    """What a method's recognisers cost.

    Args:
        training: of the pre-trained model; None: there is none.
        label_training: of earlier models whose layers gave the labels.
        clustering_seconds: of all label sets that were needed.
        finetuning_seconds: of the recognisers, all modalities together.
        teacher_training_seconds: of the speech models that teach.
        teaching_seconds: of what these make of all clips, and its clusters.
    """

    training: Cost | None
    label_training: Cost
    clustering_seconds: float
    finetuning_seconds: float
    teacher_training_seconds: float = 0.0
    teaching_seconds: float = 0.0


def word_error_rate(results: Path) -> float:
    """In percent, out of the file that ``fairseq-generate --scoring wer`` writes for the test split.

    Raises:
        ValueError: it holds no word error rate.
    """
    file = results / "generate-test.txt"
    found = re.findall(r"WER: ([0-9.]+)", file.read_text())
    if not found:
        raise ValueError(f"{file} holds no word error rate: delete it and run this again")
    return float(found[-1])


def error_rates(experiment: Experiment, method: Method) -> dict[str, float]:
    """Word error rate in percent by condition, e.g. ``audio_noisy``."""
    return {
        "_".join(condition): word_error_rate(experiment.results(method, condition))
        for condition in method.conditions
    }


def logged_work(log: str) -> tuple[int, int]:
    """Updates and frames in a pre-training's log (``common.log_format=json``).

    The lines that end an epoch state the frames of its mean update and the updates so far.

    Raises:
        ValueError: there are no such lines.
    """
    frames, before = 0.0, 0
    for text in re.findall(r"\[train\]\[INFO\] - (\{.*\})", log):
        epoch = json.loads(text)
        updates = int(epoch["train_num_updates"])
        frames += float(epoch["train_wpb"]) * (updates - before)
        before = updates
    if not before:
        raise ValueError("the log has no line at the end of an epoch")
    return before, round(frames)


def training_cost(runner: Runner, job: Job) -> Cost:
    """Of a finished pre-training."""
    return Cost(*logged_work(runner.log(job).read_text(errors="replace")), seconds(runner, job))


def method_cost(experiment: Experiment, runner: Runner, method: Method) -> MethodCost:
    """Of a method whose trainings are finished."""
    finetuning = sum(seconds(runner, job) for job in experiment.finetuning_jobs([method]))
    if not method.pretrained:
        return MethodCost(None, Cost(), 0.0, finetuning)
    stage = method.stage
    earlier = [training_cost(runner, experiment.pretraining(one)) for one in label_stages(stage)]
    return MethodCost(
        training_cost(runner, experiment.pretraining(stage)),
        sum(earlier, Cost()),
        sum(seconds(runner, experiment.clustering(labels)) for labels in label_sets(stage)),
        finetuning,
        sum(seconds(runner, experiment.teacher_training(teacher)) for teacher in stage.teachers),
        sum(seconds(runner, experiment.teaching(teacher)) for teacher in stage.teachers),
    )


def seconds(runner: Runner, job: Job) -> float:
    """That a finished job took.

    Raises:
        ValueError: it is not finished.
    """
    found = runner.finished(job)
    if found is None:
        raise ValueError(f"{job.name} is not finished in {runner.out}")
    return found[0]


def commit() -> str:
    """The version of this checkout; "dirty" if any file but the published results differs from it."""
    found = git("describe", "--always")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!examples/RESULTS*")
    return f"commit {found}{'-dirty' if changed else ''}" if found else "no commit"


def git(*command: str) -> str:
    """What git prints; nothing where this is no checkout or git is missing."""
    try:
        found = subprocess.run(["git", *command], cwd=REPOSITORY, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}."
