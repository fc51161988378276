from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from corpus import generate as generation
from corpus.clip import Settings
from make_corpus import main

pytestmark = pytest.mark.usefixtures("portraits", "synthesiser")

SMALL = ["--valid", "1", "--test", "1", "--speakers", "2", "--frame-size", "96"]


def make(out: Path, *extra: str) -> int:
    return main([str(out), "--train", "2", *SMALL, *extra])


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(portraits: object, synthesiser: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by two workers."""
    out = tmp_path_factory.mktemp("toy") / "a corpus"
    assert make(out, "--workers", "2") == 0
    return out


def test_the_folders_are_those_of_lrs3(corpus: Path) -> None:
    names = ["pretrain/p000/00000", "pretrain/p001/00001", "test/t000/00000", "valid/v000/00000"]
    expected = {f"{name}{suffix}" for name in names for suffix in (".mp4", ".txt")}
    expected |= {f"alignments/{name}.json" for name in names} | {"corpus.json"}
    assert set(digests(corpus)) == expected


def test_one_worker_makes_the_same_bytes_as_two(corpus: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again", "--workers", "1") == 0
    assert digests(tmp_path / "again") == digests(corpus)


def test_another_run_makes_only_what_is_missing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(corpus)
    gone = corpus / "pretrain" / "p001" / "00001.mp4"
    kept = corpus / "pretrain" / "p000" / "00000.mp4"
    written = kept.stat().st_mtime_ns
    gone.unlink()
    assert make(corpus, "--workers", "1") == 0
    assert "1 clips made, 3 were there" in capsys.readouterr().out
    assert digests(corpus) == before
    assert kept.stat().st_mtime_ns == written


def test_a_corpus_of_other_settings_is_left_alone(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(corpus)
    assert make(corpus, "--seed", "1") == 1
    assert "corpus.json" in (error := capsys.readouterr().err)
    assert "choose another folder" in error
    assert digests(corpus) == before


def test_a_corpus_does_not_shrink(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus), "--train", "1", *SMALL]) == 1
    assert "holds 2 clips of pretrain, asked for 1" in capsys.readouterr().err


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.json").write_text("[]")
    assert make(tmp_path) == 1
    assert "not written by this program" in capsys.readouterr().err


def test_a_first_clip_does_not_depend_on_how_many_follow() -> None:
    few = generation.plan(Settings(), {"pretrain": 3})
    many = generation.plan(Settings(), {"pretrain": 50, "test": 2})
    assert many[:3] == few
    assert many[40].speaker == many[0].speaker == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "0", "--valid", "0", "--test", "0"], "no clips asked for"),
        (["--train", "-1"], "-1 clips asked for pretrain"),
        (["--workers", "0"], "workers is 0"),
        (["--difficulty", "2"], "difficulty is 2.0"),
        (["--frame-size", "97"], "frame size is 97"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(out), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert make(tmp_path / "file" / "out") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "file" / "out") in error
    assert "choose another folder" in error


def test_without_espeak_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert make(tmp_path / "out") == 1
    assert "pip install 'av_ssl[toy]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_settings_are_written_down(corpus: Path) -> None:
    document = json.loads((corpus / "corpus.json").read_text())
    assert document["clips"] == {"pretrain": 2, "valid": 1, "test": 1}
    assert document["settings"]["frame_size"] == 96
