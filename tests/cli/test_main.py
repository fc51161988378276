"""The command as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

import av_ssl
from av_ssl.cli import main as main_module
from av_ssl.cli.main import COMMANDS, GROUPS, OLD_SPELLINGS, command_name, current_spelling, main

REPOSITORY = Path(__file__).resolve().parents[2]


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert {*GROUPS, *(name for name in COMMANDS if " " not in name)} <= set(text.split())


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_lists_its_commands(group, capsys):
    with pytest.raises(SystemExit) as error:
        main([group, "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert all(name.split()[1] in text for name in COMMANDS if name.startswith(f"{group} "))


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"av_ssl {av_ssl.__version__}\n"


@pytest.mark.parametrize(("old", "new"), OLD_SPELLINGS.items())
def test_an_old_spelling_works_and_names_the_new_one(old, new, capsys):
    with pytest.raises(SystemExit) as error:
        main([old, "DATA", "--no-such-option"])
    assert error.value.code == 2
    assert f"av-ssl {new}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["targets", "teacher", "x"], "targets teacher"),
        (["targets", "clusters", "teacher"], "targets clusters"),
        (["targets", "some/folder"], "targets clusters"),
        (["data", "check", "check"], "data check"),
    ],
)
def test_a_folder_may_be_called_like_a_command(words, command):
    assert command_name(current_spelling(words)) == command


@pytest.mark.parametrize("words", [[], ["dance"], ["crop"], ["crop", "in", "out", "--speed", "9"]])
def test_wrong_arguments_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "usage: av-ssl" in capsys.readouterr().err


PREPARATION = ["crop", "data manifest", "data vocabulary", "data noise", "data musan"]


@pytest.mark.parametrize("name", PREPARATION)
def test_every_preparation_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as error:
        main([*name.split(), "--help"])
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
    assert "run the same command again" in capsys.readouterr().err


def test_preparation_needs_neither_torch_nor_fairseq():
    code = """
import importlib, sys
for name in ("crop", "data"):
    importlib.import_module(f"av_ssl.cli.{name}")
assert not {"torch", "fairseq"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
