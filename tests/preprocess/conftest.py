"""Environments in which this process runs the scripts' ``av-ssl``."""

import os
import threading
import traceback
import zlib

import numpy as np
import pytest

from av_ssl.cli import data as cli_data
from av_ssl.cli.main import main
from av_ssl.data import check as data_check
from av_ssl.layout import FRAME_RATE, SAMPLES_PER_FRAME
from av_ssl.media import crop_folder
from av_ssl.media.audio import write_audio
from av_ssl.media.crops import OK, CropResult
from av_ssl.media.video import write_video
from tests.media.synthetic import run_in_process


def serve(requests, replies):
    """Run commands of `av-ssl`: words between NULs in one pipe, exit status in the other."""
    while words := requests.read_text().split("\0")[:-1]:
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
            status = 70
        replies.write_text(f"{status}\n")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An ``av-ssl`` that hands its words to this process, which saves starting interpreters.

    Its recordings of noise are short.
    """
    monkeypatch.setattr(cli_data, "BABBLE_SECONDS", 1.0)
    requests, replies = tmp_path / "requests", tmp_path / "replies"
    os.mkfifo(requests)
    os.mkfifo(replies)
    server = threading.Thread(target=serve, args=(requests, replies), daemon=True)
    server.start()
    command = tmp_path / "bin" / "av-ssl"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{requests}'; read -r status < '{replies}'; exit \"$status\"\n"
    )
    command.chmod(0o755)
    yield {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    requests.write_text("")
    server.join()


@pytest.fixture
def environment_without_faces(environment, monkeypatch):
    """The same; every clip crops to a gray second with noise, whatever its video holds."""
    monkeypatch.setattr(data_check, "run_isolated", run_in_process)  # workers would import torch
    monkeypatch.setattr(
        crop_folder, "run_isolated", lambda function, jobs, workers: ((j, crop(j)) for j in jobs)
    )
    return environment


def crop(job):
    rng = np.random.default_rng(zlib.crc32(job.name.encode()))
    samples = FRAME_RATE * SAMPLES_PER_FRAME
    write_audio(job.audio, rng.integers(-3000, 3000, samples).astype(np.int16))
    write_video(job.video, np.full((FRAME_RATE, job.settings.size, job.settings.size), 128, np.uint8))
    return CropResult(OK, frames=FRAME_RATE, samples=samples, faces=1, source_fps=25.0)
