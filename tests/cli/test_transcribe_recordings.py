"""`av-ssl transcribe` on recordings: formats, faces, several files, bad input."""

from __future__ import annotations

import json
import os

import av
import numpy as np
import pytest

from av_ssl.cli import transcribe as command
from tests.media.synthetic import moving_face, noise_frames, talking_head, tone, write_clip
from tests.transcription.test_recording import AUDIO, AV, VIDEO, Reader

from .conftest import call


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the command with a `Reader` of given streams as recogniser."""
    (tmp_path / "model.pt").touch()

    def run(*words, choices=(VIDEO,)) -> int:
        monkeypatch.setattr(command, "open_recogniser", lambda *args: Reader(*choices))
        return call("transcribe", tmp_path / "model.pt", *words)

    return run


@pytest.fixture
def talk(tmp_path):
    return talking_head(tmp_path / "talk.mp4", 25, 0.5)


def test_text_is_printed_and_notes_are_not_in_it(run, tmp_path, capsys):
    video = write_clip(tmp_path / "mute.mp4", moving_face(20, 0.1), None)
    assert run(video, choices=(AV, VIDEO)) == 0
    printed = capsys.readouterr()
    assert printed.out == "lips1\n"
    assert f"{video}: no audio stream" in printed.err


def test_files_of_all_formats(run, talk, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(talk, "--format", "all", "--out", out) == 0
    names = [f"talk.{kind}" for kind in ("json", "srt", "tsv", "txt", "vtt")]
    assert sorted(path.name for path in out.iterdir()) == names
    assert sorted(capsys.readouterr().out.split()) == [str(out / name) for name in names]
    (segment,) = json.loads((out / "talk.json").read_text())["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0, 1, "lips1")
    assert (out / "talk.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,000\nlips1\n\n"


def test_each_face(run, tmp_path, capsys):
    images = np.concatenate([moving_face(20, 0.2), moving_face(20, 0.0)], axis=2)
    video = write_clip(tmp_path / "two.mp4", images, None)
    assert run(video, "--all-faces") == 0
    assert capsys.readouterr().out == f"{video}, face 1:\nlips1\n{video}, face 2:\nlips2\n"
    assert run(video, "--face", "2") == 0
    assert capsys.readouterr().out == "lips2\n"


def test_one_bad_file_among_several(run, talk, tmp_path, capsys):
    folder = tmp_path / "folder"
    talking_head(folder / "sub" / "good.mp4", 25, 0.5)
    (folder / "bad.mp4").write_text("text")
    out = tmp_path / "out"
    assert run(folder, tmp_path / "absent.mp4", talk, "--out", out) == 1
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.txt")) == ["sub/good.txt", "talk.txt"]
    absent, bad = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "absent.mp4: there is no such file" in absent
    assert "bad.mp4: cannot be decoded" in bad


def test_outputs_never_overwrite_each_other(run, talk, tmp_path, refused):
    other = talking_head(tmp_path / "other" / "talk.mp4", 25, 0.5)
    assert f"{other}: its text would overwrite that of {talk}" in refused(
        run(talk, other, "--out", tmp_path / "out")
    )
    assert not (tmp_path / "out").exists()


def test_a_text_beside_the_recording_is_kept(run, talk, refused):
    """It may be the user's transcript; a file that no recording lies beside is written again."""
    own = talk.with_suffix(".txt")
    own.write_text("what is said\n")
    assert f"{own}: is there already" in refused(run(talk, "--out", talk.parent))
    assert own.read_text() == "what is said\n"
    assert run(talk, "--format", "srt", "--out", talk.parent) == 0
    for _ in range(2):
        assert run(talk, "--out", talk.parent / "out") == 0
    assert run(talk, "--all-faces", "--out", talk.parent) == 0  # writes talk.face1.txt alone
    assert own.read_text() == "what is said\n"
    assert f"{talk.with_suffix('.face1.txt')}: is there already" in refused(
        run(talk, "--all-faces", "--out", talk.parent)
    )


@pytest.mark.parametrize("words", [["--face", "2"], ["--face", "left"], ["--all-faces"], []])
def test_a_face_of_sound_alone(run, tmp_path, capsys, words):
    """And which of several audio tracks is used."""
    sound = write_clip(tmp_path / "a.mka", None, 0 * tone(0.5), more_sound=[tone(0.5)])
    assert run(sound, *words, choices=(AV, AUDIO)) == 0
    printed = capsys.readouterr().err
    assert ("--face, --all-faces" in printed) == bool(words)
    assert "audio track 2 of 2" in printed


def test_a_recording_named_twice_is_transcribed_once(run, talk, tmp_path, capsys):
    assert run(talk, talk.parent, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'talk.txt'}\n"


@pytest.mark.parametrize("words", [["transcribe", "{talk}", "{talk}"], ["align", "{talk}", "{talk}", "text"]])
def test_a_folder_that_cannot_be_written_is_reported_before_the_model_is_read(talk, capsys, words):
    assert call(*(word.format(talk=talk) for word in words), "--out", talk / "out") == 1
    assert f"error: {talk / 'out'}: cannot be written (Not a directory)" in capsys.readouterr().err


def test_a_path_that_the_system_refuses(run, talk, capsys):
    """As for a folder of another user, which is none for root: the question whether a file exists fails."""
    assert run("x" * 300, talk) == 1
    printed = capsys.readouterr()
    assert f"error: {'x' * 300}: cannot be read (File name too long)" in printed.err
    assert printed.out == "lips1\n"


def truncated(path):
    talking_head(path, 25, 0.5)
    path.write_bytes(path.read_bytes()[:-500])


def image(path):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.height, stream.width, stream.pix_fmt = 96, 96, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise_frames(1)[0], format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make", "choices", "text"),
    [
        ("noise.mp4", lambda path: write_clip(path, noise_frames(15), None), [VIDEO], "a face is seen in no"),
        ("mute.mp4", lambda path: write_clip(path, noise_frames(15), None), [AUDIO], "has no audio stream"),
        ("sound.wav", lambda path: write_clip(path, None, tone(1)), [VIDEO], "has no video stream"),
        ("image.png", image, [AV, VIDEO], "not an image"),
        ("text.mp4", lambda path: path.write_text("text"), [AV], "cannot be decoded"),
        ("truncated.mp4", truncated, [AV], "is truncated by 500 bytes"),
        ("empty.mp4", lambda path: path.touch(), [AV], "is empty"),
        ("folder", lambda path: path.mkdir(), [AV], "holds no recording"),
    ],
)
def test_bad_recordings(run, tmp_path, capsys, name, make, choices, text):
    make(tmp_path / name)
    assert run(tmp_path / name, choices=choices) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"av-ssl transcribe: error: {tmp_path / name}: ")
    assert text in line


def test_an_unreadable_folder(run, tmp_path, refused, monkeypatch):
    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return []

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "walk", walk)
    assert f"{tmp_path / 'folder'}: cannot be read (Permission denied)" in refused(run(tmp_path / "folder"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--format", "all"], "--format all: needs --out"),
        (["--workers", "2"], "--workers: recordings are transcribed in this process"),
        (["--mean-face", "absent.npy"], "absent.npy: cannot be read"),
        (["--min-frames", "9", "--max-tokens", "99"], "--max-tokens, --min-frames: for data folders"),
    ],
)
def test_options_that_do_not_fit(run, talk, refused, words, text):
    assert text in refused(run(talk, *words))


def test_model_and_recording_in_the_wrong_order(ctc, talk, capsys):
    assert call("transcribe", talk, ctc) == 1
    assert f"{talk}: is a recording, where a model is needed" in capsys.readouterr().err


def test_with_a_model(ctc, talk, capsys):
    words = ["--device", "cpu", "--beam", "2", "--format", "json", "--words"]
    assert call("transcribe", ctc, talk, *words) == 0
    content = json.loads(capsys.readouterr().out)
    assert [set(segment) >= {"start", "end", "text", "words"} for segment in content["segments"]]
    spoken = [word["word"] for word in content["word_segments"]]
    assert spoken == " ".join(segment["text"] for segment in content["segments"]).split()
