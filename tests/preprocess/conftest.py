"""The scripts find this checkout as `av-ssl`."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def path_with(folder, module):
    """Environment in which `av-ssl` runs `module`."""
    command = folder / "bin" / "av-ssl"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m {module} "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def environment(tmp_path):
    """A PATH on which `av-ssl` is this checkout."""
    return path_with(tmp_path, "av_ssl.cli")


@pytest.fixture
def environment_without_faces(tmp_path):
    """The same, but every clip crops to a gray second with noise, whatever its video holds."""
    return path_with(tmp_path, "tests.preprocess.av_ssl_without_faces")
