"""Phones and visemes of frames."""

import json

import numpy as np
import pytest

from av_ssl.analysis.alignments import read_alignment, read_visemes
from av_ssl.errors import DataError

TIMES = np.array([0.02, 0.06, 0.1, 0.14, 0.18, 0.22, 0.5], np.float32)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def alignment(tmp_path):
    phones = [["aI", 0.1, 0.2], ["b", 0.04, 0.1], ["h", 0.2, 0.3]]
    write(tmp_path / "a.json", {"speaker": "s1", "phones": phones})
    return read_alignment(tmp_path, "a")


@pytest.fixture
def table(tmp_path):
    return read_visemes(write(tmp_path / "visemes.tsv", "pbm\tp b m\nah ee\taI\n-\th ?\n"))


def test_phones(alignment):
    assert alignment.speaker == "s1"
    # A phone begins with its start and ends before its end.
    assert alignment.labels_at(TIMES) == [None, "b", "aI", "aI", "aI", "h", None]


def test_a_phone_passes_through_its_visemes(alignment, table):
    assert alignment.visemes_at(TIMES, table) == [None, "pbm", "ah", "ah", "ee", None, None]


def test_a_phone_without_viseme_is_named(alignment, table):
    del table["b"]
    with pytest.raises(DataError, match=r"a\.json: phone 'b' has no viseme"):
        alignment.visemes_at(TIMES, table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^\S*bad\.json: cannot be read \(.*\); each clip needs .*bad\.align, in \S*$"),
        ("{", "bad.json: "),
        ({}, 'needed is "phones"'),
        ([], "bad.json: "),
        ({"phones": [["a", 0.1]]}, 'needed is "phones"'),
        ({"phones": [["a", 0.1, "late"]]}, 'needed is "phones"'),
    ],
)
def test_alignments_that_cannot_be_used(content, message, tmp_path):
    if content is not None:
        write(tmp_path / "bad.json", content)
    with pytest.raises(DataError, match=message):
        read_alignment(tmp_path, "bad")


def test_words_of_grid(tmp_path):
    (tmp_path / "s1").mkdir()
    write(tmp_path / "s1/bbaf2n.align", "0 1000 sil\n1000 3000 bin\n3000 3500 sp\n3500 7500 blue\n\n")
    alignment = read_alignment(tmp_path, "s1/bbaf2n")
    assert (alignment.speaker, alignment.kind) == ("s1", "word")
    assert alignment.labels_at(TIMES) == [None, "bin", "bin", "blue", "blue", "blue", None]


@pytest.mark.parametrize("line", ["1000 bin", "0.5 1 bin", "1000 2000 bin blue", "-1 5 bin"])
def test_a_line_of_grid_that_cannot_be_used(line, tmp_path):
    write(tmp_path / "a.align", f"0 1000 sil\n{line}\n")
    with pytest.raises(DataError, match=r"a\.align, line 2: "):
        read_alignment(tmp_path, "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a\tb\nc d\n", "line 2: needed"),
        ("a\t\n", "line 1: needed"),
        ("a\tb\nc\tb\n", "line 2: phone b is there twice"),
    ],
)
def test_tables_that_cannot_be_used(text, message, tmp_path):
    if text is not None:
        write(tmp_path / "visemes.tsv", text)
    with pytest.raises(DataError, match=message):
        read_visemes(tmp_path / "visemes.tsv")
