"""Jobs in processes; shards in local processes and through submitit."""

import os
import sys
import time
from pathlib import Path

import pytest

from av_ssl import jobs
from av_ssl.errors import DataError
from av_ssl.jobs import HERE, Crash, JobOptions, run_isolated, run_missing, run_shards

REPOSITORY = Path(__file__).resolve().parents[1]
TWO = JobOptions(workers=2)


def double(shard):
    """Doubles a number; some numbers go wrong."""
    if shard == 13:
        os._exit(7)
    if shard == 14:
        raise KeyError("fourteen")
    if shard == 15:
        raise DataError("train.tsv, line 15: correct it")
    return 2 * shard


def slow(job):
    time.sleep(60)


# -- processes -----------------------------------------------------------------------------------------------


def test_a_job_that_kills_its_process_does_not_stop_the_others():
    results = dict(run_isolated(double, [1, 13, 2, 14, 3, 13.0, 4], workers=2))
    assert results[13] == Crash("its process died (exit code 7)")
    assert results[14] == Crash("KeyError: 'fourteen'")
    assert {job: results[job] for job in (1, 2, 3, 4)} == {1: 2, 2: 4, 3: 6, 4: 8}


def test_jobs_are_read_as_they_are_needed_and_closing_ends_the_processes():
    read = []

    def numbers():
        for number in range(100):
            read.append(number)
            yield number

    results = run_isolated(double, numbers(), workers=1)
    next(results)
    assert len(read) < 4
    results.close()

    hanging = run_isolated(slow, [1, 2], workers=1)
    started = time.monotonic()
    hanging.close()
    assert time.monotonic() - started < 20
    assert list(run_isolated(double, [], workers=2)) == []


# -- shards --------------------------------------------------------------------------------------------------


def test_only_missing_shards_are_run(tmp_path, capsys):
    done = {1, 3}
    run_missing("numbers", done.add, [1, 2, 3], done.__contains__, HERE, tmp_path)
    assert done == {1, 2, 3}
    shown = capsys.readouterr().err
    assert "numbers" in shown
    assert "3/3" in shown
    run_missing("numbers", double, [13, 14], lambda shard: True, HERE, tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_shards(workers, tmp_path):
    seen = []
    results = run_shards(
        double, [3, 1, 2], JobOptions(workers=workers), tmp_path, lambda *step: seen.append(step)
    )
    assert results == [6, 2, 4]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_no_shards(tmp_path):
    assert run_shards(double, [], TWO, tmp_path) == []


def test_a_failure_names_shard_and_log_and_lets_the_others_finish(tmp_path):
    done = []
    with pytest.raises(DataError, match=r"1 of 3 shards [\s\S]*\n  shard 1: KeyError: 'fourteen'; see"):
        run_shards(double, [1, 14, 2], HERE, tmp_path, lambda *step: done.append(step))
    assert done[-1] == (2, 3)
    assert 'raise KeyError("fourteen")' in (tmp_path / "shard_1.log").read_text()


def test_a_dead_process_is_a_failure(tmp_path):
    with pytest.raises(DataError, match=r"shard 0: its process died \(exit code 7\)"):
        run_shards(double, [13, 1], TWO, tmp_path)


def test_bad_data_ends_the_run_with_its_own_text(tmp_path):
    done = []
    with pytest.raises(DataError, match=r"^train\.tsv, line 15: correct it$"):
        run_shards(double, [1, 15, 2], HERE, tmp_path, lambda *step: done.append(step))
    assert done == [(0, 3), (1, 3)]


def test_what_fails_again_and_again_is_given_up(tmp_path):
    with pytest.raises(DataError, match="3 of 9 shards failed"):
        run_shards(double, [14] * 9, HERE, tmp_path)


# -- submitit ------------------------------------------------------------------------------------------------


def test_slurm_without_submitit_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(DataError, match=r"pip install 'av_ssl\[slurm\]'"):
        run_shards(double, [1], JobOptions("slurm"), tmp_path)


def test_slurm_where_there_is_none(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"--cluster slurm: .*srun.*--cluster local"):
        run_shards(double, [1], JobOptions("slurm"), tmp_path)


def test_slurm_jobs_get_the_options(monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    options = JobOptions("slurm", 8, "gpu", 1.5, 4, 1, 32.0, {"account": "speech"})
    executor = jobs._slurm_executor(options, tmp_path)
    assert isinstance(executor, submitit.AutoExecutor)
    assert executor.cluster == "slurm"
    script = executor._executor._make_submission_file_text("true", "uid")
    for line in ("--partition=gpu", "--time=90", "--cpus-per-task=4", "--gpus-per-node=1", "--mem=32GB",
                 "--account=speech", "--job-name=av_ssl"):  # fmt: skip
        assert f"#SBATCH {line}" in script


@pytest.fixture
def local_submitit(monkeypatch):
    """submitit's executor of plain processes in place of the one for Slurm."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 1)
    paths = [str(REPOSITORY), str(Path(submitit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(jobs, "_slurm_executor", lambda options, logs: submitit.LocalExecutor(logs / "slurm"))


@pytest.mark.usefixtures("local_submitit")
def test_submitit_gives_the_same_results(tmp_path):
    seen = []
    results = run_shards(double, [3, 1], JobOptions("slurm"), tmp_path, lambda *step: seen.append(step))
    assert results == [6, 2]
    assert seen[-1] == (2, 2)


@pytest.mark.usefixtures("local_submitit")
def test_failures_through_submitit(tmp_path):
    with pytest.raises(DataError, match=r"shard 0: KeyError: 'fourteen'; see .*shard_0\.log"):
        run_shards(double, [14, 1], JobOptions("slurm"), tmp_path)


@pytest.mark.usefixtures("local_submitit")
def test_a_dead_job_names_the_log_of_submitit(tmp_path):
    with pytest.raises(DataError, match=r"shard 0: job \d+ died .*see .*_log\.err"):
        run_shards(double, [13, 1], JobOptions("slurm"), tmp_path)
