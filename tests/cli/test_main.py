"""The command as a whole."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import av_ssl
from av_ssl.cli import main as main_module
from av_ssl.cli.main import COMMANDS, GROUPS, OLD_SPELLINGS, command_name, current_spelling, main

from .conftest import call

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_help_lists_every_command(group, capsys):
    with pytest.raises(SystemExit) as error:
        call(*group.split(), "--help")
    assert error.value.code == 0
    listed = re.findall(r"[\w-]+", capsys.readouterr().out)
    own = [name for name in COMMANDS if name.startswith(f"{group} ")] if group else [*COMMANDS, *GROUPS]
    assert {name.removeprefix(f"{group} ").split()[0] for name in own} <= set(listed)


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        call("--version")
    assert error.value.code == 0
    assert capsys.readouterr().out == f"av_ssl {av_ssl.__version__}\n"


@pytest.mark.parametrize(("old", "new"), OLD_SPELLINGS.items())
def test_an_old_spelling_works_and_names_the_new_one(old, new, capsys):
    with pytest.raises(SystemExit) as error:
        call(old, "DATA", "--no-such-option")
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


@pytest.mark.parametrize(
    "words",
    [
        "", "dance", "crop", "crop in out --speed 9", "crop in out --size 95", "crop in out --workers 0",
        "crop in out --region nose", "data manifest in out --valid=-0.1", "data manifest in out --valid=1.5",
        "data manifest in out --valid=many", "pseudo-labels in in --labelled in --out out --keep 1.5",
        "pseudo-labels in in --labelled in --out out --min-confidence -1",
        "pseudo-labels in in --labelled in --out out --min-frames 0",
        "targets clusters in --out out --clusters 0",
        "targets clusters in --out out --clusters 5 --fit-share 0",
        "targets clusters in --out out --clusters 5 --fit-share 1.5",
        "targets clusters in --out out --clusters 5 --label-name a/b", "transcribe m.pt a.mp4 --face middle",
    ],
)  # fmt: skip
def test_wrong_arguments_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words.split())
    assert error.value.code == 2
    assert "usage: av-ssl" in capsys.readouterr().err


PREPARATION = ["crop", "data manifest", "data vocabulary", "data noise", "data musan"]


@pytest.mark.parametrize("name", PREPARATION)
def test_every_preparation_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as error:
        call(*name.split(), "--help")
    assert error.value.code == 0
    assert f"av-ssl {name}" in capsys.readouterr().out


def test_a_missing_package_is_named_with_its_extra(monkeypatch, refused):
    def absent(name):
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(main_module.importlib, "import_module", absent)
    assert "pip install 'av_ssl[preprocess]'" in refused(call("crop", "in", "out"))


def test_an_interruption_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    from av_ssl.cli import crop

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(crop, "crop_folder", interrupted)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert call("crop", tmp_path, tmp_path / "out") == 130
    assert "run the same command again" in capsys.readouterr().err


def test_an_error_of_the_system_names_the_file(monkeypatch, capsys):
    from av_ssl.cli import crop

    def refused(args):
        raise PermissionError(13, "Permission denied", "locked/a.pt")

    monkeypatch.setattr(crop, "run_crop", refused)
    assert main(["crop", "in", "out"]) == 1
    assert capsys.readouterr().err.startswith("av-ssl crop: error: locked/a.pt: Permission denied")


def test_a_full_disk_below_the_output_is_no_traceback(monkeypatch, capsys):
    from av_ssl.cli import crop

    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(crop, "run_crop", full)
    assert main(["crop", "in", "out"]) == 1
    assert "cannot be written: No space left on device; free space" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [True, False])
def test_output_that_is_not_read_or_not_encoded(closed):
    """A pipe to a program that has ended; a name of a file that is not UTF-8, on a terminal that is not."""
    code = (
        "from av_ssl.cli import main, options\n"
        "options.run_options = lambda args: print('\\udcff\\u65e5') or 0\n"
        "raise SystemExit(main.main(['options']))"
    )
    read, write = os.pipe()
    if closed:
        os.close(read)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (int(closed), b"")
    os.close(write)
    if not closed:
        with open(read, "rb") as pipe:
            assert pipe.read() == b"\\udcff\\u65e5\n"


def test_another_pipe_that_breaks_is_not_silent(monkeypatch):
    """Such as that of a worker process."""

    def broken(args):
        raise BrokenPipeError

    monkeypatch.setattr("av_ssl.cli.options.run_options", broken)
    monkeypatch.setattr(main_module, "reader_is_gone", lambda: False)
    with pytest.raises(BrokenPipeError):
        main(["options"])


def without_torch(code: str) -> str:
    """Run code in an interpreter of its own that must not import torch; its errors."""
    check = "\nimport sys\nassert not {'torch', 'fairseq'} & set(sys.modules)"
    words = [sys.executable, "-c", code + check]
    return subprocess.run(words, check=True, cwd=REPOSITORY, capture_output=True, text=True).stderr


def test_help_and_preparation_need_neither_torch_nor_fairseq():
    without_torch("from av_ssl.cli.main import *\nfor name in COMMANDS: build_parser(name)")


COMMANDS_OF_MODELS = [
    "transcribe none.pt x.mp4", "transcribe setup.py none.mp4", "align none.pt x.mp4 text",
    "features none.pt . --out out",
    "targets clusters . --clusters 2 --checkpoint none.pt --layer 1", "model convert none.pt out.pt",
    "targets teacher none --clusters 2 --out out --model x", "model average out.pt none.pt",
    "model plan none none.yaml", "analyse probe none --alignments none", "score classify none.pt a b",
    "score trials none.tsv out", "score verify none.pt a b",
]  # fmt: skip


def test_a_missing_path_is_named_before_torch_is_imported():
    lines = without_torch(
        "from av_ssl.cli.main import main\n"
        f"for words in {COMMANDS_OF_MODELS}: assert main(words.split()) == 1"
    ).splitlines()
    assert len(lines) == len(COMMANDS_OF_MODELS)
    for words, line in zip(COMMANDS_OF_MODELS, lines, strict=True):
        name = next(word for word in words.split() if word.startswith("none"))
        assert f"{name}: there is no such file or folder" in line
