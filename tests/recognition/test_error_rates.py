"""Edits between reference and hypothesis against brute force, and the report of a decoded subset."""

from __future__ import annotations

import random
from pathlib import Path

import editdistance
import pytest

from av_ssl.recognition.error_rates import Edits, ErrorReport, count_edits


@pytest.mark.parametrize(
    ("reference", "hypothesis", "edits"),
    [
        ("", "", Edits()),
        ("a b", "", Edits(0, 2, 0, 2)),
        ("", "a b c", Edits(0, 0, 3, 0)),
        ("a b c d", "a x c", Edits(1, 1, 0, 4)),
        ("bin blue at f two now", "bin blew at two now now", Edits(3, 0, 0, 6)),  # not d f, i now
    ],
)
def test_counts(reference: str, hypothesis: str, edits: Edits) -> None:
    assert count_edits(reference.split(), hypothesis.split()) == edits


def test_they_are_the_fewest_and_explain_the_lengths() -> None:
    random.seed(1)
    for _ in range(200):
        wanted, found = (random.choices("abc", k=random.randrange(9)) for _ in range(2))
        edits = count_edits(wanted, found)
        assert edits.errors == editdistance.eval(wanted, found)
        assert len(wanted) - edits.deletions + edits.insertions == len(found)
        assert min(edits.substitutions, edits.deletions, edits.insertions) >= 0


def test_a_report_adds_clips_up(tmp_path: Path) -> None:
    report = ErrorReport()
    report.add("b/2", "set red", "set  bed now")
    report.add("a/1", "lay blue", "lay blue")
    assert (report.words, report.words.rate) == (Edits(1, 0, 1, 4), 50.0)
    assert report.characters == Edits(1, 0, 4, 15)  # r to b, and " now"
    assert "2 clips, WER 50.00 % (1 substitutions, 0 deletions, 1 insertions; 4 words)" in str(report)
    report.write(tmp_path / "clips.tsv")
    lines = [line.split("\t") for line in (tmp_path / "clips.tsv").read_text().splitlines()]
    assert lines[1:] == [
        ["a/1", "2", "0", "0", "0", "lay blue", "lay blue"],
        ["b/2", "2", "1", "0", "1", "set red", "set bed now"],
    ]
