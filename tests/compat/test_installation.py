"""What `pip install` puts into an environment, and that `pip uninstall` takes all of it away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from av_ssl.compat import install_fairseq

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_pins_come_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["torch>=2.1", 'fairseq==0.12.2; extra == "fairseq"', 'av>=12; extra == "preprocess"']
    monkeypatch.setattr(install_fairseq, "requires", lambda _: requirements)
    assert install_fairseq.pins() == ["fairseq==0.12.2"]


def test_without_av_ssl_there_are_no_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> list[str]:
        raise PackageNotFoundError("av_ssl")

    monkeypatch.setattr(install_fairseq, "requires", missing)
    with pytest.raises(SystemExit, match="install av_ssl first"):
        install_fairseq.pins()


def test_an_older_pip_installs_without_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        calls.append((command, options))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(install_fairseq, "pins", lambda: ["fairseq==0.12.2"])
    monkeypatch.setattr(subprocess, "run", run)
    assert install_fairseq.main() == 0
    (fetch, _), (install, options) = calls
    assert fetch[-1] == "pip==24.0"
    assert install[-2:] == ["--no-deps", "fairseq==0.12.2"]
    environment = options["env"]
    assert isinstance(environment, dict)
    assert environment["PYTHONPATH"] == fetch[-2]


def test_a_failed_fetch_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    assert install_fairseq.main() == 3


def files(folder: Path) -> set[str]:
    """Every file below a folder but byte code, which Python and not pip writes."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)) for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_uninstalling_leaves_nothing(tmp_path: Path, editable: bool, monkeypatch) -> None:
    """Needs an index that pip can reach for setuptools: skipped where there is none."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # a copy on it would be the one that pip finds
    source, environment = tmp_path / "source", tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "LICENSE", "av_ssl_fairseq_hook.pth"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("av_ssl", "av_ssl_fairseq_hook"):
        shutil.copytree(
            REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.tflite")
        )
    python = environment / "bin" / "python"
    before = files(environment)
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = ["install", "--quiet", "--no-deps", *(["-e"] if editable else []), source]
    installed = subprocess.run([*pip, *install], capture_output=True, text=True)
    if "setuptools" in installed.stderr and "No matching distribution" in installed.stderr:
        pytest.skip("pip reaches no index")
    assert installed.returncode == 0, installed.stderr
    assert any(name.endswith("site-packages/av_ssl_fairseq_hook.pth") for name in files(environment) - before)
    code = "import sys; print('av_ssl_fairseq_hook' in sys.modules, 'av_ssl' in sys.modules)"
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert output.stdout.split() == ["True", "False"], output.stderr
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "av_ssl"], check=True)
    assert files(environment) == before
    assert subprocess.run([python, "-c", "pass"], capture_output=True, text=True).stderr == ""
