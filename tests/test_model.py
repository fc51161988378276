"""`av_ssl.load`, `features` and `transcribe`: recordings as files and arrays."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import av_ssl
from av_ssl.data.clip_reader import ArrayClip
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.errors import DataError
from av_ssl.media.audio import write_audio
from av_ssl.media.recording import as_source, crop_recording
from av_ssl.model import CONTEXT, WINDOW, _RecordingInput, windows
from tests.data_folder import write_data
from tests.media.synthetic import moving_face, noise_frames, talking_head, tone, write_clip
from tests.tiny_checkpoints import write_checkpoint

Files = tuple[Path, Path]
FRAMES, SAMPLES = np.zeros((30, 24, 24), np.uint8), np.zeros(640 * 30, np.int16)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Files:
    data = write_data(tmp_path_factory.mktemp("data"), {"train": 1})
    return data / "train_0.npy", data / "train_0.wav"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 208 x 208 pixels with a face and sound."""
    return talking_head(tmp_path_factory.mktemp("video") / "talk.mp4", frames=30)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder") / "model.pt")


def test_a_model_is_its_module_and_more(ctc):
    model = av_ssl.load(ctc)
    assert isinstance(model.module, torch.nn.Module)
    assert model.cfg is model.module.cfg
    assert model.task_cfg["modalities"] == ["audio", "video"]
    assert model.state_dict().keys() == model.module.state_dict().keys()
    assert not model.training
    assert re.fullmatch(rf"Model\('{ctc}': CTCModel, 0\.\d M parameters\)", repr(model))
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = model.no_such_thing


def test_features_of_files_and_arrays_are_the_same(encoder, clip):
    model = av_ssl.load(encoder)
    frames, samples = read_crops(clip[0]), read_wave(clip[1])
    expected = model.features(*clip)
    assert expected.shape == (10, 4, 16)
    assert expected.dtype == np.float32
    for found in (
        av_ssl.features(encoder, video=clip[0], audio=clip[1]),
        av_ssl.features(str(encoder), str(clip[0]), str(clip[1])),
        model.features(frames, samples),
        av_ssl.features(model, frames, samples.astype(np.float32) / 32767),
        av_ssl.features(model, torch.from_numpy(np.array(frames)), samples),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(model.features(*clip, layers=[2]), expected[:, [2]])
    assert not np.allclose(model.features(clip[0]), expected)
    np.testing.assert_array_equal(model.features(samples), av_ssl.features(encoder, audio=clip[1]))


def test_a_raw_recording_is_cropped(encoder, head):
    made = crop_recording(head, size=24)
    expected = av_ssl.features(encoder, made.frames, made.samples)
    np.testing.assert_array_equal(av_ssl.features(encoder, head), expected)
    np.testing.assert_array_equal(av_ssl.features(encoder, video=head), expected)
    np.testing.assert_array_equal(av_ssl.features(encoder, made), expected)
    with pytest.raises(DataError, match=r"96 pixels, .*size=24"):
        av_ssl.features(encoder, av_ssl.crop(head))
    assert expected.shape == (30, 4, 16)
    assert av_ssl.crop(head, size=24).frames.shape == (30, 24, 24)


def test_pictures_without_a_face_are_refused(encoder, ctc, tmp_path):
    empty = write_clip(tmp_path / "empty.mp4", noise_frames(30), tone(1.2))
    with pytest.raises(DataError, match=r"empty\.mp4: "):
        av_ssl.features(encoder, empty)
    with pytest.raises(DataError, match="the array: "):
        av_ssl.features(encoder, noise_frames(30), modalities="video")
    with pytest.raises(DataError, match=r"empty\.mp4: "):
        av_ssl.transcribe(ctc, empty, modalities="video")


def test_frames_of_the_models_size_without_a_mouth_in_the_middle_are_warned_of(encoder, ctc, head, caplog):
    _RecordingInput(crop_recording(head).frames, None, 88).check_crops()
    assert not caplog.messages
    whole = np.stack([cv2.resize(frame[..., 0], (24, 24)) for frame in moving_face(30)])
    for modalities, warnings in (("audio", 0), (None, 1)):
        caplog.clear()
        sound = np.zeros(640 * 30, np.int16)
        av_ssl.features(encoder, whole, sound, modalities=modalities)
        assert sum("the array: frames of 24x24 pixels" in each for each in caplog.messages) == warnings
    caplog.clear()
    assert av_ssl.transcribe(ctc, np.tile(whole, (15, 1, 1)), modalities="video", beam=1).notes == ()
    assert any("no mouth is found" in each for each in caplog.messages)


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (None, "name a recording"),
        (np.zeros((9, 24, 24)), r"float64 \[9, 24, 24\]; frames are uint8"),
        (np.zeros((9, 24, 24, 4), np.uint8), r"uint8 \[9, 24, 24, 4\]"),
        (np.zeros((16000, 2), np.int16), r"int16 \[16000, 2\]; .* one channel"),
        (np.full(16000, 300.0), "divide them by 32768"),
        (np.full(16000, 1.6), "divide them by 32768"),
        (np.array([np.nan] * 16000), "beyond -1 to 1"),
        (np.zeros((288, 360, 3), np.uint8), r"uint8 \[288, 360, 3\]; frames are"),
        ([[1], [2, 3]], "a list that makes no array"),
        (SAMPLES[:0], "has 0 samples"),
        (b"talk.mp4", "of the type bytes; .* named by its path"),
        (np.zeros((30, 1, 1), np.uint8), "a face is seen in no part"),
        ("none.mp4", r"none\.mp4: .*No such file"),
        ("none.npy", r"none\.npy: cannot be read as an array"),
    ],
)
def test_what_is_no_recording_is_refused(encoder, recording, reason):
    with pytest.raises(DataError, match=reason):
        av_ssl.features(encoder, recording)


@pytest.mark.parametrize(
    ("recording", "audio", "reason"),
    [
        (FRAMES, np.zeros(1764 * 30, np.int16), r"52920 samples .* 3\.31 s, but .* 1\.20 s; resample"),
        (FRAMES, SAMPLES[:9600], r"0\.60 s, but .* 1\.20 s"),
        (SAMPLES, FRAMES, "takes no audio"),
        (FRAMES, FRAMES, r"audio is frames \[30, 24, 24\]"),
    ],
)
def test_sound_that_does_not_belong_to_the_recording(ctc, recording, audio, reason):
    with pytest.raises(DataError, match=reason):
        av_ssl.transcribe(ctc, recording, audio)


def test_a_sound_file_of_another_recording(ctc, tmp_path):
    for samples in (600, 640 * 60):
        sound = tmp_path / f"{samples}.wav"
        write_audio(sound, np.zeros(samples, np.int16))
        with pytest.raises(DataError, match=rf"{sound}: {samples} samples .* recording lasts 1\.20 s"):
            av_ssl.transcribe(ctc, FRAMES, sound)


@pytest.mark.parametrize(
    ("recording", "options", "reason"),
    [
        (FRAMES, {"modalities": "lips"}, "--modalities lips: the recogniser takes audio, video, av"),
        (FRAMES, {"beam": 0}, "beam is 0"),
        (FRAMES, {"beam": "5"}, "beam is '5'"),
        (FRAMES[:2], {}, "2 frame.* of 40 ms, 5 are needed"),
        (SAMPLES[:640], {}, "1 frame.* of 40 ms, 5 are needed"),
    ],
)
def test_what_cannot_be_transcribed(ctc, recording, options, reason):
    with pytest.raises(DataError, match=reason):
        av_ssl.transcribe(ctc, recording, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"modalities": "lips"}, "--modalities lips: .*model.pt has an encoder of"),
        ({"layers": []}, "names no layer; this model has layers 0 to 3"),
        ({"layers": [1.5]}, r"--layers 1\.5: this model has layers 0 to 3"),
    ],
)
def test_options_that_features_cannot_follow(encoder, options, reason):
    with pytest.raises(DataError, match=reason):
        av_ssl.features(encoder, FRAMES, **options)


@pytest.mark.parametrize("size", [0, -96, 1.5, "96"])
def test_crops_of_no_size(head, size):
    with pytest.raises(DataError, match="size is"):
        av_ssl.crop(head, size=size)


def test_a_stream_that_is_missing_is_named(encoder, clip):
    with pytest.raises(DataError, match=r"model\.pt takes audio and video; name a file of audio"):
        av_ssl.features(encoder, clip[0], modalities="av")
    with pytest.raises(DataError, match=r"model\.pt takes video; name a file of video"):
        av_ssl.features(encoder, clip[1], modalities="video")


def test_a_cover_image_is_no_video(ctc, tmp_path):
    """As in songs with the cover of their album."""
    sound = tone(1.2)
    song = write_clip(tmp_path / "song.mkv", None, sound, cover=np.zeros((1, 32, 32, 3), np.uint8))
    assert av_ssl.transcribe(ctc, song).segments[0].modalities == "audio"
    assert len(av_ssl.features(ctc, song, modalities="audio")) == 30


def test_frames_that_are_not_wanted_are_not_read(ctc, clip, monkeypatch):
    expected = av_ssl.transcribe(ctc, *clip, modalities="audio")
    monkeypatch.setattr("av_ssl.model.read_crops", None)
    assert av_ssl.transcribe(ctc, *clip, modalities="audio") == expected
    assert len(av_ssl.features(ctc, *clip, modalities="audio")) == 10


def test_samples_keep_their_scale():
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(as_source(samples), samples)
    np.testing.assert_array_equal(as_source(np.array([-1.0, 0.0, 1.0], np.float32)), [-32767, 0, 32767])


def test_long_recordings_are_encoded_in_windows():
    frames = 3 * WINDOW
    pixels = np.arange(frames, dtype=np.uint32).view(np.uint8).reshape(frames, 2, 2)
    parts = list(windows(ArrayClip.of("long", pixels, np.zeros(640 * frames, np.int16))))
    assert all(part.frames <= WINDOW and len(part.wave) == 640 * part.frames for part, _ in parts)
    np.testing.assert_array_equal(np.concatenate([part.pixels[kept] for part, kept in parts]), pixels)
    assert all(kept.start in (0, CONTEXT) for _, kept in parts)
    ((whole, kept),) = windows(ArrayClip.of("short", pixels[:WINDOW], None))
    assert whole.frames == len(range(WINDOW)[kept])


def test_text_with_word_times(ctc, clip):
    model = av_ssl.load(ctc)
    found = model.transcribe(*clip, word_timestamps=True, beam=2)
    (segment,) = found.segments
    assert " ".join(word.word for word in segment.words) == found.text == segment.text
    assert (segment.start, segment.end, segment.modalities) == (0, 0.4, "av")
    again = av_ssl.transcribe(ctc, read_crops(clip[0]), read_wave(clip[1]), beam=2)
    assert (again.text, again.confidence) == (found.text, pytest.approx(found.confidence))
    assert again.segments[0].words == ()
    assert av_ssl.transcribe(ctc, audio=clip[1]).segments[0].modalities == "audio"


def test_a_raw_recording_is_transcribed(ctc, head):
    found = av_ssl.transcribe(ctc, head, word_timestamps=True, beam=2)
    assert found.text
    assert all(segment.modalities == "av" for segment in found.segments)
    times = [time for segment in found.segments for word in segment.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert max(times) <= 1.2


def test_samples_alone_are_recognised(ctc, clip):
    samples = np.tile(read_wave(clip[1]), 4)
    transcript = av_ssl.transcribe(ctc, samples)
    assert transcript.text == av_ssl.transcribe(ctc, audio=samples).text
    assert {segment.modalities for segment in transcript.segments} == {"audio"}
