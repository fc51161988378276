"""The file of transcripts, and what a confidence is."""

from __future__ import annotations

import math

import pytest

from av_ssl.errors import DataError
from av_ssl.transcription.hypotheses import (
    HEADER,
    Hypothesis,
    confidence,
    hypotheses_text,
    hypothesis_row,
    read_hypotheses,
)


def test_confidence_is_the_geometric_mean_over_tokens():
    assert confidence(math.log(0.5) * 3, 3) == pytest.approx(0.5)
    assert confidence(math.log(0.9) + math.log(0.4), 2) == pytest.approx(math.sqrt(0.9 * 0.4))
    assert confidence(math.log(0.7), 0) == pytest.approx(0.7)  # empty
    assert confidence(-math.inf, 2) == 0
    assert confidence(1e-7, 1) == 1  # rounding


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "train.hyp.tsv"
    written = [Hypothesis("a/1", 0.1234, 63, "bin blue"), Hypothesis("b", 1.0, 25, "")]
    path.write_text(HEADER + hypotheses_text(written))
    assert path.read_text().splitlines()[1] == "a/1\t0.1234\t2\t2.52\tbin blue"
    assert read_hypotheses(path) == written


def test_white_space_in_a_text_cannot_break_the_file(tmp_path):
    path = tmp_path / "train.hyp.tsv"
    path.write_text(HEADER + hypothesis_row(Hypothesis("a", 0.5, 25, " bin\tblue \n at")))
    assert read_hypotheses(path)[0].text == "bin blue at"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a\t0.5\t1\t1.00\n", "line 2: needed are 5 columns"),
        ("a\thigh\t1\t1.00\tbin\n", "line 2: needed are 5 columns"),
        ("a\t1.5\t1\t1.00\tbin\n", r"line 2: confidence is 1\.5"),
        ("a\tnan\t1\t1.00\tbin\n", "line 2: confidence is nan"),
        ("a\t0.5\t1\t1.00\tbin\na\t0.6\t1\t1.00\tbin\n", "line 3: id 'a' "),
        ("a\t0.5\t1\t1.00\tbin\n\n", "line 3: needed are 5 columns"),
    ],
)
def test_malformed_lines_are_named(rows, message, tmp_path):
    path = tmp_path / "train.hyp.tsv"
    path.write_text(HEADER + rows)
    with pytest.raises(DataError, match=rf"train\.hyp\.tsv, {message}"):
        read_hypotheses(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "train.hyp.tsv"
    with pytest.raises(DataError, match=r"cannot be read.*av-ssl transcribe writes it"):
        read_hypotheses(path)
    path.write_text("/\na\tb.mp4\ta.wav\t9\t9\n")
    with pytest.raises(DataError, match="line 1: is not 'id confidence words seconds text'"):
        read_hypotheses(path)
    path.write_bytes(b"id\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_hypotheses(path)
