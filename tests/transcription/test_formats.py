"""Files of transcripts, read back."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from av_ssl.transcription.formats import FORMATS, LINE, LINES, write_transcript
from av_ssl.transcription.transcript import Segment, Transcript, Word

WORDS = (
    Word("say", 0.5, 0.8, 0.9),
    Word("<bin>", 0.8, 1.2, 0.81234),
    Word("&", 1.2, 1.3, 0.5),
    Word("blue", 1.4, 1.75, 1.0),
)
FIRST = Segment(0.5, 1.75, "say <bin> & blue", WORDS, 0.87654, "av")
WITHOUT_TIMES = Segment(3661.0, 3663.5, "über zwei", (), 0.5, "audio")
TRANSCRIPT = Transcript((FIRST, WITHOUT_TIMES), ("no face from 60.0 to 61.0 s",))


def written(name: str, transcript: Transcript, folder) -> str:
    (file,) = write_transcript(transcript, folder / "a talk.v2", (name,))
    assert file.name == f"a talk.v2.{name}"
    return file.read_bytes().decode()


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def cues(text: str, point: str) -> list[tuple[float, float, str]]:
    pattern = rf"(\d\d:\d\d:\d\d{point}\d\d\d) --> (\d\d:\d\d:\d\d{point}\d\d\d)\n((?:.+\n)+)\n"
    return [(seconds(one), seconds(other), lines.strip()) for one, other, lines in re.findall(pattern, text)]


def test_plain_text_and_table(tmp_path):
    assert written("txt", TRANSCRIPT, tmp_path) == "say <bin> & blue\nüber zwei\n"
    table = written("tsv", TRANSCRIPT, tmp_path)
    assert table == "start\tend\ttext\n500\t1750\tsay <bin> & blue\n3661000\t3663500\tüber zwei\n"


def test_json_has_whisperx_keys(tmp_path):
    found = json.loads(written("json", TRANSCRIPT, tmp_path))
    assert {"segments", "word_segments", "language"} <= found.keys()
    assert found["language"] is None
    assert found["notes"] == ["no face from 60.0 to 61.0 s"]
    first, second = found["segments"]
    assert (first["start"], first["end"], first["text"]) == (0.5, 1.75, "say <bin> & blue")
    assert first["words"][1] == {"word": "<bin>", "start": 0.8, "end": 1.2, "score": 0.812}
    assert (first["confidence"], first["modalities"]) == (0.877, "av")
    assert found["word_segments"] == first["words"]
    assert (second["text"], second["words"]) == ("über zwei", [])


def test_subtitles(tmp_path):
    srt, vtt = written("srt", TRANSCRIPT, tmp_path), written("vtt", TRANSCRIPT, tmp_path)
    assert srt.startswith("1\n00:00:00,500 --> 00:00:01,750\nsay <bin> & blue\n\n2\n01:01:01,000 --> ")
    assert cues(srt, ",") == [(0.5, 1.75, "say <bin> & blue"), (3661.0, 3663.5, "über zwei")]
    assert vtt.startswith("WEBVTT\n\n")
    assert [text for _, _, text in cues(vtt, r"\.")] == ["say &lt;bin&gt; &amp; blue", "über zwei"]


@pytest.mark.parametrize("timed", [True, False])
def test_subtitles_are_short_and_in_order(tmp_path, timed):
    words = tuple(Word(f"word{number}", 0.5 * number, 0.5 * number + 0.4, 1.0) for number in range(60))
    late = tuple(Word(word.word, word.start + 32, word.end + 32, 1.0) for word in words[:3])  # after a pause
    long = (Word("w" * 60, 40.0, 41.0, 1.0),)
    segments = [
        Segment(
            group[0].start,
            group[-1].end,
            " ".join(word.word for word in group),
            group if timed else (),
            1.0,
            "av",
        )
        for group in (words + late, long)
    ]
    shown = cues(written("srt", Transcript(tuple(segments)), tmp_path), ",")
    assert " ".join(text for *_, text in shown[:-1]).split() == [word.word for word in words + late]
    assert shown[-1][2].replace("\n", "") == "w" * 60  # as in scripts without spaces
    assert all(start < end for start, end, _ in shown)
    assert all(one[1] <= other[0] for one, other in pairwise(shown))
    for start, end, text in shown:
        assert len(text.split("\n")) <= LINES
        assert max(map(len, text.split("\n"))) <= LINE
        assert end - start <= 7
    if timed:
        assert (32.0, 33.4, "word0 word1 word2") in shown


@pytest.mark.parametrize("letters", [20, 58, 400])
def test_subtitles_of_a_script_without_spaces(tmp_path, letters):
    text = "".join(chr(0x3042 + number % 80) for number in range(letters))
    shown = cues(written("srt", Transcript((Segment(0, 16, text, (), 1, "audio"),)), tmp_path), ",")
    assert "".join(part.replace("\n", "") for *_, part in shown) == text
    assert all(one[1] <= other[0] for one, other in pairwise(shown))
    for start, end, part in shown:
        assert max(map(len, part.split("\n"))) <= LINE
        assert len(part.split("\n")) <= LINES
        assert end - start <= 7.001


def test_a_short_word_that_lasts_long_is_not_cut(tmp_path):
    shown = cues(written("srt", Transcript((Segment(0, 16, "a", (), 1, "audio"),)), tmp_path), ",")
    assert shown == [(0.0, 16.0, "a")]


def test_overlapping_segments_do_not_overlap_on_the_screen(tmp_path):
    segments = (
        Segment(0, 2, "a", (), 1, "av"),
        Segment(1, 1.5, "b", (), 1, "av"),
        Segment(1.2, 3, "c", (), 1, "av"),
    )
    shown = cues(written("vtt", Transcript(segments), tmp_path), r"\.")
    assert shown == [(0.0, 2.0, "a"), (2.0, 2.001, "b"), (2.001, 3.0, "c")]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_was_said(tmp_path, name):
    for transcript in (Transcript(()), Transcript((Segment(0, 1, "", (), 0.1, "audio"),))):
        text = written(name, transcript, tmp_path)
        assert "-->" not in text
    assert Transcript(()).text == ""
    assert Transcript(()).confidence == 0


def test_text_and_confidence_of_a_transcript():
    assert TRANSCRIPT.text == "say <bin> & blue über zwei"
    assert TRANSCRIPT.confidence == pytest.approx((0.87654**4 * 0.5**2) ** (1 / 6))
