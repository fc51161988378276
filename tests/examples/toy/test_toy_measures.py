from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiment import Corpus, Experiment
from jobs import Job, Runner
from measures import Cost, logged_work, method_cost, seconds, word_error_rate
from methods import METHODS, SCRATCH
from sizes import QUICK

EPOCH = (
    '[2026-01-01 00:00:00,000][train][INFO] - {{"epoch": {}, "train_wpb": "{}", "train_num_updates": "{}"}}\n'
)
INNER = '[2026-01-01 00:00:00,000][train_inner][INFO] - {"epoch": 1, "wpb": "9", "num_updates": "5"}\n'
LOG = "$ command\n" + INNER + EPOCH.format(1, 500.5, 10) + EPOCH.format(2, 600, 12)


def pretend(runner: Runner, job: Job, taken: float) -> None:
    """Leave what the job would leave that has ended."""
    runner.log(job).write_text(LOG)
    mark = {"fingerprint": job.fingerprint(), "seconds": taken, "version": "commit abc"}
    runner.mark(job).write_text(json.dumps(mark))


def test_the_last_word_error_rate_counts(tmp_path: Path) -> None:
    (tmp_path / "generate-test.txt").write_text("WER: 90.0\nGenerate test with beam=8: WER: 52.25\n")
    assert word_error_rate(tmp_path) == 52.25


def test_a_decoding_without_error_rate_is_named(tmp_path: Path) -> None:
    (tmp_path / "generate-test.txt").write_text("killed")
    with pytest.raises(ValueError, match=r"generate-test\.txt holds no word error rate"):
        word_error_rate(tmp_path)


def test_frames_are_those_of_all_epochs() -> None:
    assert logged_work(LOG) == (12, 10 * 500.5 + 2 * 600)


def test_a_log_without_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="no line at the end of an epoch"):
        logged_work(INNER)


def test_labels_are_counted_apart(tmp_path: Path) -> None:
    experiment, runner = Experiment(tmp_path, Corpus(tmp_path, QUICK, 1), 1), Runner(tmp_path, "commit abc")
    method = METHODS["av_hubert_2"]
    for number, job in enumerate(experiment.pretraining_jobs([method])):
        pretend(runner, job, 10.0**number)  # MFCC, first iteration, its clusters, second iteration
    for job in experiment.finetuning_jobs([method]):
        pretend(runner, job, 2.0)
    cost = method_cost(experiment, runner, method)
    assert cost.training == Cost(12, 6205, 1000.0)
    assert cost.label_training == Cost(12, 6205, 10.0)
    assert cost.clustering_seconds == 101.0
    assert cost.finetuning_seconds == 6.0


def test_speech_teachers_are_counted_apart(tmp_path: Path) -> None:
    experiment, runner = Experiment(tmp_path, Corpus(tmp_path, QUICK, 1), 1), Runner(tmp_path, "commit abc")
    method = METHODS["distillav"]
    for number, job in enumerate(experiment.pretraining_jobs([method])):
        pretend(runner, job, 10.0**number)  # MFCC, HuBERT, its targets, Whisper, its targets, the student
    for job in experiment.finetuning_jobs([method]):
        pretend(runner, job, 2.0)
    cost = method_cost(experiment, runner, method)
    assert cost.training == Cost(12, 6205, 100_000.0)
    assert (cost.label_training, cost.clustering_seconds) == (Cost(), 1.0)
    assert (cost.teacher_training_seconds, cost.teaching_seconds) == (1010.0, 10_100.0)


def test_scratch_costs_its_fine_tuning_alone(tmp_path: Path) -> None:
    experiment, runner = Experiment(tmp_path, Corpus(tmp_path, QUICK, 1), 1), Runner(tmp_path, "commit abc")
    for job in experiment.finetuning_jobs([SCRATCH]):
        pretend(runner, job, 2.0)
    cost = method_cost(experiment, runner, SCRATCH)
    assert (cost.training, cost.label_training, cost.clustering_seconds) == (None, Cost(), 0.0)
    assert cost.finetuning_seconds == 6.0


def test_unfinished_work_has_no_cost(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "commit abc")
    with pytest.raises(ValueError, match="corpus is not finished"):
        seconds(runner, Corpus(tmp_path, QUICK, 1).making())
