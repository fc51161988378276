from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import Job, Runner


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, "commit abc")


def append(name: str, text: str = "x", **others: object) -> Job:
    """Adds to NAME/file, so that one sees how often it ran and what was there."""
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); "
    code += "f = (p / 'file').open('a'); f.write(sys.argv[2])"
    return Job(name, (sys.executable, "-c", code, name, text), **others)  # type: ignore[arg-type]


def content(runner: Runner, name: str) -> str:
    return (runner.out / name / "file").read_text()


def test_finished_jobs_are_skipped(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [append("one"), append("two")]
    runner.run("Some work", jobs, at_once=2)
    runner.run("Some work", jobs)
    assert "Some work: finished before" in capsys.readouterr().out
    assert (content(runner, "one"), content(runner, "two")) == ("x", "x")
    assert runner.seconds["Some work"] > 0
    seconds, version = runner.finished(jobs[0]) or (0, "")
    assert 0 < seconds < 30
    assert version == "commit abc"


def test_changed_settings_run_it_again(runner: Runner) -> None:
    recipe = runner.out / "recipe.yaml"
    recipe.write_text("lr: 1")
    job = append("one", settings=(recipe,))
    later = append("two", after=(job,))
    runner.run("Work", [job, later])
    recipe.write_text("lr: 2")
    assert not runner.is_finished(job)
    assert not runner.is_finished(later)
    runner.run("Work", [job, later])
    assert (content(runner, "one"), content(runner, "two")) == ("xx", "xx")


def test_what_was_left_under_other_settings_is_deleted(runner: Runner) -> None:
    job = append("one", folder=runner.out / "one")
    runner.run("Work", [job])
    other = append("one", "y", folder=runner.out / "one")
    runner.run("Work", [other])
    assert content(runner, "one") == "y"
    assert not runner.is_finished(job)


def test_a_killed_job_keeps_its_folder(runner: Runner) -> None:
    job = append("one", folder=runner.out / "one")
    runner.run("Work", [job])
    runner.mark(job).unlink()
    runner.run("Work", [job])
    assert content(runner, "one") == "xx"


def test_a_job_that_was_cleared_by_another_is_not_finished(runner: Runner) -> None:
    job = append("one", folder=runner.out / "one")
    runner.run("Work", [job])
    failing = replace(job, command=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(SystemExit):
        runner.run("Work", [failing])
    assert not runner.is_finished(job)


def test_a_failure_shows_the_end_of_the_log_and_ends_the_others(runner: Runner) -> None:
    failing = Job("bad", (sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"))
    asleep = Job("asleep", (sys.executable, "-c", "import time; time.sleep(60); open('awake', 'w')"))
    with pytest.raises(SystemExit, match=r"bad failed \(exit status 3\)[\s\S]*what went wrong"):
        runner.run("Work", [failing, asleep], at_once=2)
    assert not runner.is_finished(failing)
    assert not runner.is_finished(asleep)


@pytest.mark.parametrize("text", ["", "0123abcd", "[]", json.dumps({"fingerprint": "other"})])
def test_marks_that_are_not_ours_mean_unfinished(runner: Runner, text: str) -> None:
    job = append("one")
    runner.mark(job).write_text(text)
    assert runner.finished(job) is None
