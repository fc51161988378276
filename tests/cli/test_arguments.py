"""Arguments for the shards of long jobs."""

import argparse

import pytest

from av_ssl.cli.arguments import add_cluster_arguments, add_shard_arguments, available_cores, cluster_options
from av_ssl.jobs import ClusterOptions


def test_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=3)
    add_cluster_arguments(parser)
    assert cluster_options(parser.parse_args([])) == ClusterOptions(workers=3)
    words = (
        "--cluster slurm --workers 8 --slurm-partition gpu --slurm-hours 1.5 --slurm-cpus 4 --slurm-gpus 1"
    )
    words += " --slurm-memory 32 --slurm-option account=speech --slurm-option qos=low"
    options = {"account": "speech", "qos": "low"}
    assert cluster_options(parser.parse_args(words.split())) == ClusterOptions(
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
    add_cluster_arguments(parser)
    assert cluster_options(parser.parse_args(words.split())).workers == workers
