"""Clips that are a part of a video, and sound that lies in a file of its own."""

import av
import numpy as np
import pytest

from av_ssl.layout import SAMPLES_PER_FRAME
from av_ssl.media.audio import read_audio, read_plain_wav, write_audio
from av_ssl.media.backends import OpenCVBackend
from av_ssl.media.crop_folder import crop_folder
from av_ssl.media.crops import CropSettings
from av_ssl.media.sources import ClipSource
from av_ssl.media.video import VideoReader, read_video
from tests.media.synthetic import moving_face, talking_head, tone, write_clip

SETTINGS = CropSettings(stride=4)  # fast


pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(params=["mp4", "avi"])
def counting(request, tmp_path):
    """100 frames whose gray level is twice their number, with B-frames; avi stores no times of display."""
    levels = (2 * np.arange(100, dtype=np.uint8)).reshape(-1, 1, 1, 1)
    path = tmp_path / f"count.{request.param}"
    return write_clip(
        path, np.broadcast_to(levels, (100, 32, 32, 3)).copy(), tone(4), options={"g": "12", "bf": "2"}
    )


def test_every_frame_of_a_file_comes_once(counting):
    levels = read_video(counting).mean((1, 2))
    np.testing.assert_allclose(levels, 2 * np.arange(100), atol=2.5)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.4), (0.4, 0.8), (1.0, 3.0), (3.6, 9.0), (0.41, 0.81)])
def test_frames_of_a_span(counting, start, end):
    reader = VideoReader(counting, span=(start, end))
    levels = np.stack(list(reader.frames(gray=True))).mean((1, 2))
    first, after = round(start * 25), min(100, round(end * 25))
    assert len(levels) == after - first
    np.testing.assert_allclose(levels, 2 * np.arange(first, after), atol=2.5)
    again = np.stack(list(reader.frames(gray=True))).mean((1, 2))
    np.testing.assert_array_equal(levels, again)


@pytest.mark.parametrize(("start", "end"), [(0.4, 0.8), (1.0, 3.0), (3.6, 9.0)])
def test_a_seek_may_end_behind_its_place(tmp_path, start, end):
    """In a program stream; then the file is read from its start."""
    images = np.random.default_rng(0).integers(0, 255, (100, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    clip = write_clip(tmp_path / "a.mpg", images, None, options={"g": "12", "bf": "2"})
    part = np.stack(list(VideoReader(clip, span=(start, end)).frames(gray=True)))
    np.testing.assert_array_equal(part, read_video(clip)[round(start * 25) : round(end * 25)])


@pytest.mark.parametrize("suffix", ["mp3", "wav", "mkv", "mp4", "flac"])
@pytest.mark.parametrize("start", [0.0, 0.2, 2.0])
def test_samples_of_a_span(suffix, start, tmp_path):
    """Long recordings are read bit by bit; an mp3 file refuses a seek to before its start."""
    path = tmp_path / f"talk.{suffix}"
    with av.open(path, "w") as container:
        codec = {"mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac"}.get(suffix, "aac")
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        sound = av.AudioFrame.from_ndarray(chirp(4.0)[None], format="s16", layout="mono")
        sound.sample_rate = 16_000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    whole = read_audio(path)
    first = round(16_000 * start)
    np.testing.assert_array_equal(read_audio(path, span=(start, start + 1)), whole[first : first + 16_000])


@pytest.mark.parametrize("codec", ["mp2", "ac3"])
def test_a_seek_may_end_within_a_packet(tmp_path, codec):
    """A part of a program stream, in which packets have no place of their own."""
    path = tmp_path / "talk.mpg"
    with av.open(path, "w", format="vob") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        sound = av.AudioFrame.from_ndarray(chirp(8.0)[None], format="s16", layout="mono")
        sound.sample_rate = 16_000
        resampler = av.AudioResampler(stream.format.name, "mono", 48_000, stream.codec_context.frame_size)
        frames = [*resampler.resample(sound), *resampler.resample(None)]
        container.mux([packet for frame in frames for packet in stream.encode(frame)])
        container.mux(stream.encode(None))
    whole = read_audio(path)
    for start in (1.5, 3.13, 7.0):
        first = round(16_000 * start)
        part = read_audio(path, span=(start, start + 1)).astype(int)
        # Not bit by bit: the resampler begins elsewhere, by less than a sample.
        assert len(part) == len(whole[first : first + 16_000])
        assert np.corrcoef(part, whole[first : first + 16_000])[0, 1] > 0.98


def chirp(seconds: float) -> np.ndarray:
    """int16 ``[N]`` at 16 kHz that is nowhere the same."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    return (8000 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.int16)


def test_crops_of_a_span_show_and_sound_what_lies_there(tmp_path):
    video = talking_head(tmp_path / "long.mkv", frames=30, shift=1)
    write_clip(tmp_path / "silent first.mkv", moving_face(30, 1), np.pad(tone(0.6), ((0, 0), (9600, 0))))
    sources = {
        "whole": ClipSource(video),
        "first": ClipSource(video, span=(0.0, 0.4)),
        "last": ClipSource(tmp_path / "silent first.mkv", span=(0.6, 1.2)),
    }
    out = tmp_path / "out"
    results = crop_folder(sources, out, SETTINGS).results
    assert {name: (result.frames, result.samples) for name, result in results.items()} == {
        "whole": (30, 30 * SAMPLES_PER_FRAME),
        "first": (10, 10 * SAMPLES_PER_FRAME),
        "last": (15, 15 * SAMPLES_PER_FRAME),
    }
    assert len(read_video(out / "video/last.mp4")) == 15
    sound = read_plain_wav(out / "audio/last.wav").astype(float)
    assert np.sqrt(np.mean(sound[:3200] ** 2)) > 3000  # the tone, not the silence before it


def test_a_span_is_cropped_again_when_its_times_change(tmp_path):
    video, times = talking_head(tmp_path / "a.mkv", frames=20), tmp_path / "a.txt"
    times.write_text("one")
    out = tmp_path / "out"
    source = ClipSource(video, span=(0.0, 0.4), times=times)
    assert crop_folder({"a": source}, out, SETTINGS).results["a"].frames == 10
    times.write_text("other")
    source = ClipSource(video, span=(0.0, 0.6), times=times)
    assert crop_folder({"a": source}, out, SETTINGS).results["a"].frames == 15


def test_ready_made_landmarks_of_the_whole_video_serve_its_parts(tmp_path):
    video = talking_head(tmp_path / "long.mp4", frames=30, shift=1)
    mesh = OpenCVBackend().track(VideoReader(video), "").tracks[0].interpolated(30)
    folder = tmp_path / "landmarks"
    folder.mkdir()
    np.save(folder / "long.npy", mesh)
    source = {"long_01": ClipSource(video, span=(0.6, 1.0), recording="long")}
    files = CropSettings(backend="files", landmarks=str(folder))
    assert crop_folder(source, tmp_path / "files", files).results["long_01"].ok
    assert crop_folder(source, tmp_path / "found", CropSettings(stride=1)).results["long_01"].ok
    crops, expected = (
        read_video(tmp_path / out / "video/long_01.mp4").astype(float) for out in ("files", "found")
    )
    assert np.abs(crops - expected).mean() < 1.5


def test_a_clip_is_cropped_again_when_its_landmarks_change(tmp_path):
    video = talking_head(tmp_path / "a.mp4", shift=1)
    mesh = OpenCVBackend().track(VideoReader(video), "").tracks[0].interpolated(12)
    files = CropSettings(backend="files", landmarks=str(tmp_path))
    source, read = {"a": ClipSource(video)}, tmp_path / "out/video/a.mp4"
    np.save(tmp_path / "a.npy", np.full_like(mesh, np.nan))
    assert crop_folder(source, tmp_path / "out", files).results["a"].reason == "no_face"
    np.save(tmp_path / "a.npy", mesh + [6, 6, 0][: mesh.shape[2]])
    assert crop_folder(source, tmp_path / "out", files).results["a"].ok
    before = read.read_bytes()
    np.save(tmp_path / "a.npy", mesh[:, :, :2])
    assert crop_folder(source, tmp_path / "out", files).results["a"].ok
    assert read.read_bytes() != before


@pytest.mark.parametrize(("rows", "reason"), [(30, "ok"), (10, "no_landmarks"), (60, "no_landmarks")])
def test_landmarks_of_a_part_or_of_another_video_are_refused(tmp_path, rows, reason):
    video = talking_head(tmp_path / "long.mp4", frames=30, shift=0)
    mesh = OpenCVBackend().track(VideoReader(video), "").tracks[0].interpolated(1)
    np.save(tmp_path / "long.npy", np.repeat(mesh, rows, 0))
    source = {"long_01": ClipSource(video, span=(0.6, 1.0), recording="long")}
    settings = CropSettings(backend="files", landmarks=str(tmp_path))
    result = crop_folder(source, tmp_path / "out", settings).results["long_01"]
    assert result.reason == reason
    assert reason == "ok" or f"{rows} frames, {video} has about 30;" in result.message
    assert reason == "ok" or f"{tmp_path / 'long.npy'}: " in result.message


def test_sound_from_a_file_of_its_own(tmp_path):
    mute = write_clip(tmp_path / "mute.mp4", moving_face(8), None)
    sound = tmp_path / "sound.wav"
    write_audio(sound, np.full(8 * SAMPLES_PER_FRAME, 1000, np.int16))
    sources = {
        "with": ClipSource(mute, sound),
        "lost": ClipSource(mute, tmp_path / "absent.wav"),
        "no": ClipSource(mute),
    }
    out = tmp_path / "out"
    results = crop_folder(sources, out, SETTINGS).results
    assert {name: result.reason for name, result in results.items()} == {
        "with": "ok",
        "lost": "unreadable",
        "no": "no_audio",
    }
    assert set(read_plain_wav(out / "audio/with.wav")) == {1000}
