"""Arguments for the shards of long jobs."""

import argparse

import pytest

from av_ssl.cli.cluster_options import add_cluster_arguments, cluster_options
from av_ssl.cluster import ClusterOptions


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
