"""Frames at 25 frames/s by time stamps, and crops that survive being written."""

import cv2
import numpy as np
import pytest

from av_ssl.errors import MediaError
from av_ssl.media.audio import read_audio
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


def test_a_jump_of_the_time_stamps_is_refused(tmp_path):
    clip = write_clip(tmp_path / "jump.mkv", noise_frames(3), None, times=np.array([0, 0.04, 900.0]))
    with pytest.raises(MediaError, match=r"jump\.mkv: .* 900 s"):
        read_video(clip)
