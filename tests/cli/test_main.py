"""The command as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from av_ssl.cli import main as main_module
from av_ssl.cli.main import COMMANDS, main

REPOSITORY = Path(__file__).resolve().parents[2]


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("words", [[], ["dance"], ["crop"], ["crop", "in", "out", "--speed", "9"]])
def test_wrong_arguments_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "usage: av-ssl" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["crop", "manifest", "vocabulary", "noise"])
def test_every_preparation_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as error:
        main([name, "--help"])
    assert error.value.code == 0
    assert f"av-ssl {name}" in capsys.readouterr().out


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    def absent(name):
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(main_module.importlib, "import_module", absent)
    assert main(["crop", "in", "out"]) == 1
    assert "pip install 'av_ssl[preprocess]'" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    from av_ssl.cli import crop

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(crop, "crop_folder", interrupted)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert main(["crop", str(tmp_path), str(tmp_path / "out")]) == 130
    assert "goes on where it stopped" in capsys.readouterr().err


def test_preparation_needs_neither_torch_nor_fairseq():
    code = """
import importlib, sys
from av_ssl.cli.main import COMMANDS
for name in ("crop", "manifest", "vocabulary", "noise"):
    importlib.import_module(COMMANDS[name][0])
assert not {"torch", "fairseq"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
