"""`av-ssl align`: word times of a known text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from av_ssl.media.audio import write_audio
from av_ssl.transcription.forced_alignment import stitched
from tests.tiny_checkpoints import write_recogniser

from .conftest import call

WORDS = "hello world"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of sound and one without a CTC head, and two recordings: 2 s, 40 s."""
    folder = tmp_path_factory.mktemp("align")
    write_recogniser(folder / "ctc.pt", "av_hubert_ctc", ("audio",))
    write_recogniser(folder / "seq2seq.pt", "av_hubert_seq2seq", ("audio",))
    noise = np.random.default_rng(0).normal(0, 1000, 40 * 16000).astype(np.int16)
    write_audio(folder / "long.wav", noise)
    write_audio(folder / "talk.wav", noise[:32000])
    return folder


@pytest.fixture
def align(folder, capsys):
    """Runs the command; its exit status, output and errors."""

    def run(text: str, *options: str, model: str = "ctc.pt", recording: str = "talk.wav"):
        words = [str(folder / model), str(folder / recording), text, "--device", "cpu", *options]
        status = call("align", *words)
        return status, *capsys.readouterr()

    return run


def test_words_as_json(align):
    status, out, _ = align("bin Blue,\nat two")
    assert status == 0
    found = json.loads(out)
    assert [segment["text"] for segment in found["segments"]] == ["bin Blue,", "at two"]
    assert [word["word"] for word in found["word_segments"]] == ["bin", "Blue,", "at", "two"]
    times = [word[key] for word in found["word_segments"] for key in ("start", "end")]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 2
    assert all(0 < word["score"] <= 1 for word in found["word_segments"])
    assert found["segments"][0]["modalities"] == "audio"


def test_files_of_all_formats(align, tmp_path):
    text = tmp_path / "said.txt"
    text.write_text("bin blue\nat two\n")
    status, out, _ = align(str(text), "--format", "all", "--out", str(tmp_path / "times"))
    assert (status, len(out.splitlines())) == (0, 5)
    assert (tmp_path / "times" / "talk.txt").read_text() == "bin blue\nat two\n"


def test_a_long_recording_is_aligned_as_one(align):
    status, out, _ = align("bin blue at two now " * 8, recording="long.wav")
    assert status == 0
    words = json.loads(out)["word_segments"]
    assert len(words) == 40
    assert max(word["end"] for word in words) > 16  # of more than one part


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("bin ΩΩ blue", {}, "cannot spell 'ΩΩ'"),
        ("", {}, "the text holds no words"),
        ("none.txt", {}, "none.txt: cannot be read"),
        ("bin blue " * 40, {}, "talk.wav: lasts 2.0 s, too short for a text of 80 words"),
        ("bin", {"model": "seq2seq.pt"}, "av_hubert_ctc or hybrid_ctc_attention"),
        ("bin", {"model": "none.pt"}, "none.pt: there is no such file"),
        ("bin", {"recording": "none.wav"}, "none.wav: "),
        ("bin", {"recording": "ctc.pt"}, "ctc.pt: "),
    ],
)
def test_mistakes_are_one_line(align, text, options, error):
    status, out, err = align(text, **options)
    assert (status, out) == (1, "")
    lines = [line for line in err.splitlines() if line.startswith("av-ssl align: error: ")]
    assert len(lines) == 1
    assert error in lines[0]
    assert "Traceback" not in err


def test_parts_are_stitched_in_the_middle_of_their_overlap():
    gap = np.array([9])
    pieces = [(6, np.full((4, 1), 2)), (0, np.full((8, 1), 1)), (12, np.full((2, 1), 3))]
    assert stitched(pieces, gap).ravel().tolist() == [1] * 7 + [2] * 3 + [9, 9] + [3] * 2
    assert stitched([(2, np.full((1, 1), 1))], gap).ravel().tolist() == [9, 9, 1]
    assert stitched([], gap).shape == (0, 1)
