"""`python -m av_ssl.compat.install_fairseq`: puts stock fairseq 0.12.2 into this Python, whatever its pip.

fairseq asks for an omegaconf below 2.1, and the metadata of all of these ("PyYAML (>=5.1.*)") is refused by
pip 24.1 and later, with `--no-deps` too.  So an older pip, put into a temporary folder, installs fairseq,
hydra and omegaconf; the environment keeps its own pip.  What the three need in turn is among av_ssl's own
requirements, but for torchaudio: nothing that is used here imports it, and it ties the version of torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires

OLD_PIP = "pip==24.0"  # the last that takes omegaconf 2.0.6
EXTRA = 'extra == "fairseq"'


def pins() -> list[str]:
    """The requirements of av_ssl's extra `fairseq`, such as "fairseq==0.12.2".

    Raises:
        SystemExit: av_ssl is not installed.
    """
    try:
        requirements = requires("av_ssl") or []
    except PackageNotFoundError:
        raise SystemExit(
            "install av_ssl first: its metadata hold the versions of fairseq and hydra"
        ) from None
    parts = [requirement.partition(";") for requirement in requirements]
    return [name.strip() for name, _, marker in parts if marker.strip() == EXTRA]


def main() -> int:
    """Install the pins without their dependencies; pip's own exit status."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    with tempfile.TemporaryDirectory() as folder:
        fetch = [*pip, "--quiet", "--target", folder, OLD_PIP]
        status = subprocess.run(fetch, check=False).returncode
        if status:
            return status
        environment = {**os.environ, "PYTHONPATH": folder}
        return subprocess.run([*pip, "--no-deps", *pins()], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
