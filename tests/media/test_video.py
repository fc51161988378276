"""Frames at 25 frames/s by time stamps, and crops that survive being written."""

import hashlib

import av
import cv2
import numpy as np
import pytest

from av_ssl.errors import MediaError
from av_ssl.media.audio import read_audio
from av_ssl.media.container import MissingStreamError
from av_ssl.media.video import VideoReader, read_video, write_video
from tests.media.synthetic import noise_frames, tone, write_clip

EVENTS = (0.4, 1.2, 2.0)  # seconds


def flashes_and_beeps(path, fps, rate):
    """A white frame and a tone for 120 ms at each of EVENTS; 2.6 s."""
    seconds = 2.6
    times = np.arange(round(seconds * fps)) / fps
    frames = np.zeros((len(times), 64, 64, 3), np.uint8)
    sound = np.zeros((1, round(seconds * rate)), np.float32)
    beep = tone(0.12, rate, 1000.0)[0]
    for event in EVENTS:
        frames[(times > event - 1e-6) & (times < event + 0.12)] = 255
        sound[0, round(event * rate) : round(event * rate) + len(beep)] = beep
    return write_clip(path, frames, sound, fps, rate)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 50])
def test_flash_and_beep_stay_together(tmp_path, fps, suffix):
    clip = flashes_and_beeps(tmp_path / f"clip{suffix}", fps, 44100)
    white = read_video(clip).mean((1, 2)) > 128
    samples = np.abs(read_audio(clip).astype(float))
    assert len(white) == 65
    flashes = np.flatnonzero(white[1:] & ~white[:-1]) + 1
    assert np.abs(flashes / 25 - EVENTS).max() <= 0.5 / 25 + 0.5 / fps + 1e-6
    for event in EVENTS:
        start = round((event - 0.2) * 16000)
        onset = start + np.flatnonzero(samples[start:] > 2000)[0]
        assert onset / 16000 == pytest.approx(event, abs=0.002)


def test_variable_frame_rate_follows_the_time_stamps(tmp_path):
    levels = np.array([0, 60, 120, 180, 240], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5, 64, 64, 3)).copy()
    times = np.array([0.0, 0.04, 0.2, 0.28, 0.4])
    clip = write_clip(tmp_path / "clip.mkv", frames, None, times=times)
    shown = np.round(read_video(clip).mean((1, 2)) / 60)
    np.testing.assert_array_equal(shown[:11], [0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4])


def test_a_second_pass_gives_the_same_frames_kept_or_not(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", noise_frames(), None, fps=30)
    kept, decoded_again = VideoReader(clip), VideoReader(clip, keep_bytes=0)
    first = list(kept.frames())
    for reader in (kept, decoded_again):
        list(reader.frames(gray=True))
        np.testing.assert_array_equal(np.stack(first), np.stack(list(reader.frames())))
    assert kept.source_fps == 30
    assert first[0].shape == (96, 96, 3)


def test_written_gray_levels_are_unbiased_in_every_reader(tmp_path):
    ramp = np.linspace(0, 255, 96)[None, None].repeat(10, 0).repeat(96, 1).astype(np.uint8)
    write_video(tmp_path / "crop.mp4", ramp)
    ours = read_video(tmp_path / "crop.mp4").astype(float)
    capture = cv2.VideoCapture(str(tmp_path / "crop.mp4"))
    _, theirs = capture.read()
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    assert ours.shape == ramp.shape
    assert abs((ours - ramp).mean()) < 0.2
    assert abs((theirs.mean(-1) - ramp[0]).mean()) < 0.5
    assert np.abs(ours - ramp).max() < 8


def test_same_frames_same_bytes_and_no_other_file(tmp_path):
    frames = noise_frames()[..., 0]
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "new" / name, frames)
        digests.add(hashlib.sha256((tmp_path / "new" / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("shape", [(0, 96, 96), (3, 95, 96), (3, 96, 96, 3)])
def test_frames_that_cannot_be_written_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="frames"):
        write_video(tmp_path / "crop.mp4", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"broken\.mp4: "):
        read_video(path)


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        read_video(tmp_path / "absent.mp4")
    whole = write_clip(tmp_path / "whole.mp4", noise_frames(), None)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        read_video(cut)


def test_audio_only_file_has_no_video(tmp_path):
    path = write_clip(tmp_path / "voice.mkv", None, tone(0.5))
    with pytest.raises(MissingStreamError, match=r"voice\.mkv: .*video"):
        read_video(path)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2), (0, 0)])
def test_frames_are_turned_as_the_file_says(tmp_path, degrees, turns):
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    frames[:, :20, :30] = 255
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a turn")
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.set_display_rotation(degrees)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    expected = np.rot90(frames[0, ..., 0], turns)
    shown = read_video(clip)[0]
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(float) - expected).mean() < 4


def test_a_jump_of_the_time_stamps_is_refused(tmp_path):
    clip = write_clip(tmp_path / "jump.mkv", noise_frames(3), None, times=np.array([0, 0.04, 900.0]))
    with pytest.raises(MediaError, match=r"jump\.mkv: .* 900 s"):
        read_video(clip)
