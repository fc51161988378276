"""Arguments for the shards of long jobs."""

import argparse
from pathlib import Path

import pytest

from av_ssl.cli.arguments import add_job_arguments, add_shard_arguments, job_options, open_recogniser
from av_ssl.cli.main import main
from av_ssl.errors import DataError
from av_ssl.jobs import JobOptions, available_cores
from av_ssl.transcription.transcript import SearchOptions


@pytest.mark.parametrize(
    "words",
    [
        "data noise DATA --seed -1", "data noise DATA --minutes -3", "score verify M D --workers 0",
        "transcribe M R --max-len-b -5", "transcribe M R --max-len-a nan", "model plan R D --measure -1",
        "targets clusters D --seed -1",
    ],
)  # fmt: skip
def test_numbers_out_of_range(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words.split())
    assert error.value.code == 2
    assert f"argument {words.split()[-2]}: must be " in capsys.readouterr().err


def test_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=3)
    add_job_arguments(parser)
    assert job_options(parser.parse_args([])) == JobOptions(workers=3)
    words = (
        "--cluster slurm --workers 8 --slurm-partition gpu --slurm-hours 1.5 --slurm-cpus 4 --slurm-gpus 1"
    )
    words += " --slurm-memory 32 --slurm-option account=speech --slurm-option qos=low"
    options = {"account": "speech", "qos": "low"}
    assert job_options(parser.parse_args(words.split())) == JobOptions(
        "slurm", 8, "gpu", 1.5, 4, 1, 32.0, options
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["--slurm-option", "account"])


@pytest.mark.parametrize(
    ("words", "gpus", "workers"),
    [
        ("", 2, available_cores()),
        ("--device cuda", 2, 2),
        ("--device cuda --workers 5", 2, 5),
        ("--device cuda --cluster slurm", 0, available_cores()),  # of a machine that only starts jobs
    ],
)
def test_a_process_a_gpu(monkeypatch, words, gpus, workers):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    add_shard_arguments(parser)
    add_job_arguments(parser)
    assert job_options(parser.parse_args(words.split())).workers == workers


@pytest.mark.parametrize("option", ["lenpen", "max_len_a", "max_len_b"])
def test_onnx_has_no_bounds_on_lengths(option):
    args = argparse.Namespace(checkpoint=Path("a.onnx"), device="auto", precision="float32")
    with pytest.raises(DataError, match=f"--{option.replace('_', '-')}: a.onnx "):
        open_recogniser(args, SearchOptions(**{option: 3}))
