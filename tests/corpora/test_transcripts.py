"""Texts beside videos."""

import pytest

from av_ssl.corpora.transcripts import Word, read_transcript, read_word_times, require_transcript
from av_ssl.errors import DataError
from tests.corpora.trees import lrs_text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Text:  HELLO  THERE\nConf:  3\n\nWORD START END\nHELLO 0.1 0.2\n", "hello there"),
        (b"Hello\nthere\t\xc3\x89mile\n", "hello there émile"),
        (b"\xef\xbb\xbfText: Bom", "bom"),
        (b"Text:\nConf: 3\n", None),
        (b" \n", None),
    ],
)
def test_transcripts(tmp_path, content, expected):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_transcript(tmp_path / "a.txt") == expected
    assert read_transcript(tmp_path / "absent.txt") is None


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt: .*UTF-8"):
        read_transcript(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"a\.txt: "), ("", r"a\.txt, line 1: .*Text:"), ("Text:  \nConf: 3\n", r"a\.txt, line 1: ")],
)
def test_a_required_transcript(tmp_path, content, message):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        require_transcript(path)


def test_word_times(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(lrs_text("IT'S TRUE", [(0.25, 0.5), (0.5, 1)]))
    assert read_word_times(path) == [Word("it's", 0.25, 0.5), Word("true", 0.5, 1.0)]
    assert require_transcript(path) == "it's true"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"a\.txt: .*WORD START END"),
        (["WORD START END ASDSCORE"], r"a\.txt: .* line 4"),
        (["WORD START END ASDSCORE", "A 0.1 0.2 3", "B x 0.4 3"], r"a\.txt, line 6: "),
        (["WORD START END ASDSCORE", "A 0.5 0.2 3"], r"a\.txt, line 5: "),
        (["WORD START END ASDSCORE", "A nan nan 3"], r"a\.txt, line 5: "),
        (["WORD START END ASDSCORE", "A 0.5 0.6 3", "B 0.1 0.2 3"], r"a\.txt, line 6: "),
    ],
)
def test_broken_word_times_are_named(tmp_path, lines, message):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["Text:  A B", "Conf:  3", "", *lines]) + "\n")
    with pytest.raises(DataError, match=message):
        read_word_times(path)
