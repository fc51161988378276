"""Texts beside videos, and long recordings that are cut at pauses."""

import itertools
import random

import pytest

from av_ssl.corpora.transcripts import (
    LONGEST,
    TimedWord,
    cut_at_pauses,
    read_transcript,
    read_word_times,
    require_transcript,
)
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
        ("\u202bhel\u00adlo\u200bthere\ufeff\x1b\u202c".encode(), "hello there"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645".encode(),
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        (b"\x1b", None),
    ],
)
def test_transcripts(tmp_path, content, expected):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_transcript(tmp_path / "a.txt") == expected
    assert read_transcript(tmp_path / "absent.txt") is None


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt, line 1: .*UTF-8"):
        read_transcript(tmp_path / "a.txt")


SUBTITLES = "1\n00:00:00,500 --> 00:00:01,900\nHello there\n"


@pytest.mark.parametrize(
    "content",
    [
        SUBTITLES,
        SUBTITLES.replace("\n", "\r\n"),
        "WEBVTT\n\n00:00.500 --> 00:01.900\n<v Ann>Hello there\n",
        "[Script Info]\nTitle: x\n",
        "[00:00.50]Hello\n[00:01.20]there\n",
        "0:05\nhello there\n0:09\nagain\n",
        "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n",
        "0.00 0.52 hello\n0.52 1.10 there\n",
        "HELLO 0.10 0.52\nTHERE 0.60 1.10\n",
        "clip A 0.10 0.42 hello\nclip A 0.52 0.58 there\n",
        "start,end,text\n0.00,0.52,hello\n",
        '{"text": "hello"}',
        '{\n "text": "hello"\n}\n',
        '[{"word": "hello"}]',
        "<?xml version='1.0'?><tt/>",
        'File type = "ooTextFile"\nObject class = "TextGrid"\n',
        r"{\rtf1 Hello}",
        "Disk reference: 62\nChannel: BBC1\nDuration: 1.16 seconds\n",
        "Identity  : \tid00012\nReference : \tabc\n",
        "0,1200,hello\n1200,2400,there\n",
        "0;1200;hello\n1200;2400;there\n",
        "| word | start |\n|---|---|\n| hello | 1 |\n",
        "<p>hello</p>",
        "<i>hello</i> there",
        "<Trans>\n<Sync time='0'/>hello\n",
    ],
)
def test_files_that_hold_more_than_words_are_refused(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, newline="")
    with pytest.raises(DataError, match=r"a\.txt: .*only the words"):
        read_transcript(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "content",
    [
        "one 2 three", "10:30 is the time", "note: this is one line", "1 2 3 4", "it is 3.5 percent\nof 4",
        "<unk> hello", "[laughter] hello", "a\nb: c\nd\ne", "zwölf\n5 6\nsieben",
    ],
)  # fmt: skip
def test_words_stay_words(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    assert read_transcript(tmp_path / "a.txt") == " ".join(content.split())


def test_what_editors_write(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.txt").write_text("Cafe\u0301\r\nNOIR", encoding=encoding, newline="")
        assert read_transcript(tmp_path / "a.txt") == "caf\u00e9 noir"


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
    assert read_word_times(path) == [TimedWord("it's", 0.25, 0.5), TimedWord("true", 0.5, 1.0)]
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


def words(*times):
    return [TimedWord(f"w{number}", start, end) for number, (start, end) in enumerate(times)]


@pytest.mark.parametrize(
    ("times", "texts"),
    [
        ([(0.5, 4), (5, 9), (10, 14), (15, 19)], ["w0 w1 w2", "w3"]),  # the last pause that fits
        ([(0, 4), (5, 9), (9.4, 14.5), (14.5, 19)], ["w0", "w1 w2 w3"]),  # exactly 0.4 s are not enough
        ([(0, 4), (5, 9), (9.5, 14.5), (14.5, 19)], ["w0 w1", "w2 w3"]),
        ([(0, 5), (5.3, 10), (10.1, 14), (14.1, 19)], ["w0", "w1 w2 w3"]),  # no pause: the longest gap
        ([(0, 1), (2, 20), (21, 22)], ["w0", "w1", "w2"]),  # a word longer than the limit stays whole
    ],
)
def test_cuts(times, texts):
    assert [piece.transcript for piece in cut_at_pauses(words(*times))] == texts


def test_pieces_have_0_2_seconds_around_them_or_half_of_the_gap():
    first, second = cut_at_pauses(words((0.5, 4), (5, 9), (10, 14), (15, 19)))
    assert (*first.span, *second.span) == pytest.approx((0.3, 14.2, 14.8, 19.2))
    first, second = cut_at_pauses(words((0, 5), (5.3, 10), (10.1, 14), (14.1, 19)))
    assert first.span[1] == second.span[0] == pytest.approx(5.15)


def test_pieces_hold_every_word_once_are_short_and_do_not_overlap():
    draw = random.Random(0)
    for _ in range(50):
        time, times = 0.0, []
        for _ in range(draw.randint(1, 200)):
            time += draw.choice([0.0, 0.02, 0.1, 0.3, 0.5, 2.0])
            times.append((time, time + draw.uniform(0.05, 0.8)))
            time = times[-1][1]
        pieces = cut_at_pauses(words(*times))
        assert " ".join(piece.transcript for piece in pieces).split() == [f"w{k}" for k in range(len(times))]
        for piece in pieces:
            assert 0 <= piece.span[0] < piece.span[1]
            assert piece.span[1] - piece.span[0] <= LONGEST + 1e-9
        for before, after in itertools.pairwise(pieces):
            assert before.span[1] <= after.span[0] + 1e-9
