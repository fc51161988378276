"""Recordings to text by a recogniser that reads back what its parts hold: joins, fallbacks, bad input."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile

from av_ssl.errors import DataError
from av_ssl.media import recording
from av_ssl.transcription.recording import (
    Heard,
    RecordingOptions,
    joined,
    read_ahead,
    transcribe_faces,
    transcribe_recording,
)
from av_ssl.transcription.transcript import Recognition, Word
from tests.media.synthetic import moving_face, noise_frames
from tests.media.test_recording import crops_of, gray, numbered, wide

AV, AUDIO, VIDEO = ("audio", "video"), ("audio",), ("video",)


class Reader:
    """Every half second of a part is a word, by its number in the recording (see `numbered`)."""

    def __init__(self, *choices, silent=()):
        self.stream_choices, self.calls, self.crop_side = choices, [], 96

    def recognise(self, parts, streams, word_times=False):
        assert streams in self.stream_choices
        self.calls += [streams] * len(parts)
        return [self.read(part, streams, word_times) for part in parts]

    @staticmethod
    def read(part, streams, word_times):
        for stream, content in (("audio", part.samples), ("video", part.frames)):
            assert stream not in streams or content is not None
        if "audio" not in streams:
            return Recognition(f"lips{part.face}", 0.5)
        frames = part.samples[::640].astype(int) - 1000
        whole = [start for start in range(len(frames) - 11) if frames[start] % 12 == 0]
        names = [f"w{frames[start] // 12}" for start in whole]
        words = [
            Word(name, start / 25 + 0.02, start / 25 + 0.44, 0.9)
            for name, start in zip(names, whole, strict=True)
        ]
        return Recognition(" ".join(names), 0.5, tuple(words) if word_times else ())


@pytest.mark.parametrize("word_times", [False, True])
@pytest.mark.parametrize("pause", [False, True])
def test_a_long_recording_has_every_word_once(word_times, pause):
    sound = numbered(38 * 16000)
    if pause:
        sound[12 * 640 * 20 - 3000 : 12 * 640 * 20] = 0
    reader = Reader(AV, AUDIO)
    transcript = transcribe_recording(
        reader, crops_of(38), RecordingOptions(word_times=word_times), sound=sound
    )
    expected = [f"w{number}" for number in range(79)]
    assert transcript.text.split() == expected
    assert reader.calls == [AV] * 3
    ends = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    assert ends == sorted(ends)
    assert {segment.modalities for segment in transcript.segments} == {"av"}
    for word in (word for segment in transcript.segments for word in segment.words):
        assert word.start == pytest.approx(int(word.word[1:]) * 0.48 + 0.02)
    assert transcript.notes == ()


def heard(start, end, text, *times):
    words = (
        tuple(
            Word(word, time - start, time - start + 0.2, 1.0)
            for word, time in zip(text.split(), times, strict=True)
            if times
        )
        if times
        else ()
    )
    return Heard(start, end, AUDIO, Recognition(text, 0.5, words))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "a b", "a b"),
        ("a b", "", "a b"),
    ],
)
def test_overlaps_with_nothing(before, after, expected):
    segments = joined([heard(0, 10, before), heard(8.5, 20, after)])
    assert " ".join(segment.text for segment in segments) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("a b c", 8, 8.8, 9.5), ("b c d", 8.8, 9.5, 11), "a b c d"),
        (("a b", 8, 9.1), ("b c", 9.2, 11), "a b c"),  # on both sides of the middle, 9.25
        (("a b", 8, 9.2), ("b c", 9.1, 11), "a b c"),
        (("a b", 8, 9.0), ("b c", 9.6, 11), "a b b c"),  # said twice
        (("a no", 8, 8.6), ("no", 12), "a no no"),
        (("5 5 2", 8.75, 9.0, 9.25), ("5 5 2", 8.77, 9.0, 9.28), "5 5 2"),  # fast
        (("5 5 2", 8.9, 9.15, 9.4), ("5 5 2", 8.92, 9.15, 9.43), "5 5 2"),
        (("no no no", 8.7, 9.0, 9.3), ("no no no", 8.72, 9.02, 9.32), "no no no"),
    ],
)
def test_overlaps_with_times(before, after, expected):
    (text, *times), (text2, *times2) = before, after
    segments = joined([heard(0, 10, text, *times), heard(8.5, 20, text2, *times2)])
    assert " ".join(segment.text for segment in segments) == expected
    assert [word.word for segment in segments for word in segment.words] == expected.split()
    plain = joined([heard(0, 10, text, *times), heard(8.5, 20, text2, *times2)], word_times=False)
    assert [segment.text for segment in plain] == [segment.text for segment in segments]
    assert not any(segment.words for segment in plain)


def interrupted() -> np.ndarray:
    """A face for 1 s of 2."""
    return np.concatenate([moving_face(25, 0.1), gray(24)])


@pytest.mark.parametrize(
    ("choices", "modalities", "streams", "note"),
    [
        ((AV, AUDIO, VIDEO), None, ["av", "audio"], "only the sound was recognised there"),
        ((AV, VIDEO), None, ["av"], "nothing was recognised there"),
        ((VIDEO,), None, ["video"], "nothing was recognised there"),
        ((AV, AUDIO, VIDEO), "av", ["av", "audio"], "only the sound was recognised there"),
        ((AV, AUDIO, VIDEO), "audio", ["audio"], None),
        ((AV, AUDIO, VIDEO), "video", ["video"], "nothing was recognised there"),
    ],
)
def test_a_lost_face(choices, modalities, streams, note):
    options = RecordingOptions(modalities=modalities)
    transcript = transcribe_recording(Reader(*choices), interrupted(), options, numbered(49 * 640))
    assert [segment.modalities for segment in transcript.segments] == streams
    assert [text.split(": ")[1] for text in transcript.notes] == ([note] if note else [])
    assert all("no face from 1.0 to 2.0 s" in text for text in transcript.notes)


def test_every_face_has_its_text():
    images = wide(moving_face(20, 0.2), moving_face(20, 0.0)[:, :, ::-1])
    faces = transcribe_faces(Reader(AV, VIDEO), images)
    assert {number: transcript.text for number, transcript in faces.items()} == {1: "lips1", 2: "lips2"}
    assert {transcript.notes for transcript in faces.values()} == {
        ("no audio stream: only video was recognised",)
    }


def test_progress_reaches_the_end():
    seen = []
    transcribe_recording(
        Reader(VIDEO), crops_of(100), progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (0, 100)
    assert seen[-1] == (100, 100)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) >= 4


@pytest.mark.parametrize(
    ("choices", "modalities", "images", "sound", "text"),
    [
        ((VIDEO,), None, noise_frames(20), None, "a face is seen in no part"),
        ((VIDEO,), None, np.concatenate([moving_face(13, 0.1), gray(30)]), None, "seen in 3.% of it"),
        ((AV,), None, np.concatenate([moving_face(13, 0.1), gray(30)]), 43, "takes audio and video"),
        ((AUDIO,), None, crops_of(1), None, "no audio stream"),
        ((AV,), None, crops_of(1), None, "no audio stream, and the recogniser takes audio and video"),
        ((AV, VIDEO), "av", crops_of(1), None, "no audio stream, and --modalities av asks for audio"),
        ((AUDIO,), "video", crops_of(1), 25, "--modalities video: the recogniser takes audio"),
    ],
)
def test_what_cannot_be_recognised(choices, modalities, images, sound, text):
    samples = None if sound is None else numbered(640 * sound)
    with pytest.raises(DataError, match=text) as error:
        transcribe_recording(Reader(*choices), images, RecordingOptions(modalities=modalities), samples)
    assert len(str(error.value).splitlines()) == 1


def test_a_stream_that_is_missing_is_noted():
    transcript = transcribe_recording(Reader(AV, AUDIO, VIDEO), crops_of(2))
    assert transcript.text == "lips1"
    assert transcript.notes == ("no audio stream: only video was recognised",)


def test_silence_is_noted_for_what_takes_sound():
    silence = np.full(32000, 9, np.int16)
    for choices, notes in (((AV,), ("the sound is silent",)), ((VIDEO,), ())):
        assert transcribe_recording(Reader(*choices), crops_of(2), sound=silence).notes == notes


@pytest.mark.parametrize("whole", [600, 2])
def test_a_file_that_is_shorter_than_it_states(tmp_path, monkeypatch, whole):
    """Also where it is read in blocks, of which the last ones are missing."""
    monkeypatch.setattr(recording, "WHOLE", whole)
    monkeypatch.setattr(recording, "BLOCK", 2)
    path = tmp_path / "cut.mp3"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 160000), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (note,) = transcribe_recording(Reader(AUDIO), path).notes
    assert re.match(r"ends after [456]\.\d s, though the file states 10\.\d s", note)


def test_a_face_that_was_asked_for_is_there():
    options = RecordingOptions(face=2)
    with pytest.raises(DataError, match="face 2 is seen in no part"):
        transcribe_recording(Reader(AV, AUDIO, VIDEO), moving_face(20, 0.1), options, numbered(640 * 20))
    found = transcribe_recording(Reader(AV, AUDIO), numbered(640 * 20), options)
    missing, no_choice = found.notes
    assert missing == "no video stream: only audio was recognised"
    assert "--face" in no_choice


def test_reading_ahead_keeps_order_and_errors():
    made = []

    def items():
        for number in range(4):
            made.append(number)
            yield number
        raise DataError("cut off")

    seen = []
    with pytest.raises(DataError, match="cut off"):
        seen += read_ahead(items())
    ahead = read_ahead(items())
    made.clear()
    assert next(ahead) == 0
    ahead.close()  # the item that was begun is finished, no other is
    assert made == [0, 1]
    assert list(read_ahead(iter([]))) == []
