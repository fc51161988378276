"""Jobs in processes of their own."""

import os
import time

from av_ssl.jobs import Crash, run_isolated


def work(job):
    """Doubles a number; some numbers end the process or raise."""
    if job == 13:
        os._exit(7)
    if job == 14:
        raise KeyError("fourteen")
    return 2 * job


def slow(job):
    time.sleep(60)


def test_a_job_that_kills_its_process_does_not_stop_the_others():
    results = dict(run_isolated(work, [1, 13, 2, 14, 3, 13.0, 4], workers=2))
    assert results[13] == Crash("its process died (exit code 7)")
    assert results[14] == Crash("KeyError: 'fourteen'")
    assert {job: results[job] for job in (1, 2, 3, 4)} == {1: 2, 2: 4, 3: 6, 4: 8}


def test_no_jobs_no_processes():
    assert list(run_isolated(work, [], workers=2)) == []


def test_jobs_are_read_as_they_are_needed_and_closing_ends_the_processes():
    read = []

    def jobs():
        for job in range(100):
            read.append(job)
            yield job

    results = run_isolated(work, jobs(), workers=1)
    next(results)
    assert len(read) < 4
    results.close()

    hanging = run_isolated(slow, [1, 2], workers=1)
    started = time.monotonic()
    hanging.close()
    assert time.monotonic() - started < 20
