"""One clip: what comes out, and which reason is given when nothing does."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from av_ssl.media.alignment import MESH
from av_ssl.media.audio import read_audio
from av_ssl.media.backends import OpenCVBackend
from av_ssl.media.crops import CropSettings, crop_clip
from av_ssl.media.video import VideoReader, read_video
from tests.media.synthetic import (
    moving_face,
    noise_frames,
    syllables,
    talking_face,
    talking_head,
    tone,
    voice,
    write_clip,
)


@pytest.fixture
def crop(tmp_path, mesh):
    """Crops a clip into `video` and `audio` of the test's folder."""

    def run(source, **settings):
        return crop_clip(
            source,
            tmp_path / "v.mp4",
            tmp_path / "a.wav",
            CropSettings(**settings),
            OpenCVBackend(settings.get("stride", 1), mesh),
        )

    run.video, run.audio = tmp_path / "v.mp4", tmp_path / "a.wav"
    return run


def test_a_good_clip_gives_both_files(tmp_path, crop):
    result = crop(talking_head(tmp_path / "clip.mp4"))
    assert result.ok
    assert (result.frames, result.samples, result.faces, result.source_fps) == (12, 7680, 1, 25)
    assert read_video(crop.video).shape == (12, 96, 96)
    assert read_audio(crop.audio).shape == (7680,)


def test_the_moving_face_stands_still_in_the_crop(tmp_path, crop):
    crop(talking_head(tmp_path / "clip.mkv", shift=3.0))
    crops = read_video(crop.video).astype(float)
    moved = moving_face(12, 3.0)[..., 1].astype(float)
    assert np.abs(crops[2] - crops[9]).mean() < 2
    assert np.abs(moved[2] - moved[9]).mean() > 15


@pytest.mark.parametrize("settings", [{"size": 48}, {"size": 64, "region": "face"}, {"stride": 4}])
def test_settings(tmp_path, crop, settings):
    assert crop(talking_head(tmp_path / "clip.mkv"), **settings).ok
    side = settings.get("size", 96)
    assert read_video(crop.video).shape == (12, side, side)


@pytest.mark.parametrize(("fps", "frames"), [(24, 10), (30, 9), (50, 10)])
def test_other_frame_rates_become_25(tmp_path, crop, fps, frames):
    sources = {24: 10, 30: 11, 50: 20}[fps]
    clip = write_clip(tmp_path / "clip.mp4", moving_face(sources), tone(sources / fps), fps=fps)
    result = crop(clip)
    assert result.ok
    assert result.frames == frames
    assert result.source_fps == fps
    assert len(read_audio(crop.audio)) == 640 * frames


@pytest.mark.parametrize("talker", ["left", "right"])
def test_of_two_faces_the_one_that_talks_is_taken(tmp_path, crop, talker):
    """Side by side, in both orders; the other one moves its mouth, too, but not with the sound."""
    opening = syllables(50)
    talking = talking_face(opening)
    chewing = talking_face(0.5 + 0.5 * np.sin(np.arange(50) * 0.35), shift=-0.3)[:, :, ::-1]
    faces = [talking, chewing] if talker == "left" else [chewing, talking]
    result = crop(write_clip(tmp_path / "two.mkv", np.concatenate(faces, axis=2), voice(opening)), stride=2)
    assert (result.reason, result.faces) == ("ok", 2)
    taken = read_video(crop.video).astype(float)
    distances = []
    for number, frames in enumerate((talking, chewing)):
        assert crop(write_clip(tmp_path / f"{number}.mkv", frames, voice(opening)), stride=2).ok
        distances.append(np.abs(read_video(crop.video) - taken).mean())
    assert 3 * distances[0] < distances[1]


def test_a_face_at_rest_does_not_stand_for_the_one_that_talks_and_leaves(tmp_path, crop):
    opening = syllables(50)
    talking, resting = talking_face(opening), talking_face(np.zeros(50), shift=-0.3)[:, :, ::-1]
    talking[30:] = 0  # gone after 30 of 50 frames
    clip = write_clip(tmp_path / "two.mkv", np.concatenate([talking, resting], axis=2), voice(opening))
    result = crop(clip, stride=2)
    assert (result.reason, result.face_share) == ("face_lost", 0.6)
    assert crop(clip, stride=2, min_face=0.5).ok
    taken = read_video(crop.video)[:25].astype(float)
    distances = []
    for number, frames in enumerate((talking, resting)):
        assert crop(write_clip(tmp_path / f"{number}.mkv", frames, voice(opening)), stride=2, min_face=0.5).ok
        distances.append(np.abs(read_video(crop.video)[:25] - taken).mean())
    assert 3 * distances[0] < distances[1]


@pytest.mark.parametrize("delay", [-4, 0, 4])
def test_the_delay_of_the_sound_is_estimated(tmp_path, crop, delay):
    opening = syllables(80)
    sound = np.roll(voice(opening[8:-8]), 640 * delay, axis=1)
    result = crop(write_clip(tmp_path / "clip.mkv", talking_face(opening[8:-8]), sound), stride=2)
    assert result.audio_delay == pytest.approx(delay, abs=1.5)


def test_a_silent_clip_has_no_delay(tmp_path, crop):
    clip = write_clip(tmp_path / "clip.mkv", talking_face(syllables(50)), np.zeros((1, 32000), np.float32))
    result = crop(clip, stride=3)
    assert result.ok
    assert result.audio_delay is None


@pytest.mark.parametrize("seconds", [0.2, 1.2])
def test_sound_of_another_length_is_cut_or_filled_to_the_frames(tmp_path, crop, seconds):
    result = crop(write_clip(tmp_path / "clip.mkv", moving_face(12), tone(seconds)))
    assert result.ok
    assert (result.frames, result.samples) == (12, 7680)
    assert result.sound_excess == pytest.approx(seconds - 0.48, abs=0.001)
    samples = read_audio(crop.audio)
    assert len(samples) == 7680
    assert (np.abs(samples[-1000:]).max() > 0) == (seconds > 0.48)


def test_a_video_that_is_stored_turned_is_cropped_upright(tmp_path, crop):
    frames = moving_face(12)
    clip = write_clip(tmp_path / "turned.mp4", np.rot90(frames, -1, (1, 2)), tone(0.48), turn=90)
    assert crop(clip).ok
    turned = read_video(crop.video).astype(float)
    assert crop(write_clip(tmp_path / "upright.mp4", frames, tone(0.48))).ok
    assert np.abs(read_video(crop.video) - turned).mean() < 4


def test_a_variable_frame_rate_keeps_lips_and_sound_together(tmp_path, crop):
    """The frames of a telephone: 40 ms apart at first, 80 ms later; the crop has the frame of that time."""
    times = np.concatenate([np.arange(20) * 0.04, 0.8 + np.arange(20) * 0.08])
    shown = syllables(60)[np.round(times * 25).astype(int)]
    clip = write_clip(tmp_path / "vfr.mkv", talking_face(shown, 0), voice(syllables(60)), times=times)
    result = crop(clip)
    assert result.ok
    assert result.frames == pytest.approx(60, abs=1)
    expected = write_clip(tmp_path / "cfr.mkv", talking_face(syllables(60), 0), voice(syllables(60)))
    crops = read_video(crop.video).astype(float)
    assert crop(expected).ok
    steady = read_video(crop.video).astype(float)
    assert np.abs(crops[:20] - steady[:20]).mean() < 3
    early, right, late = (
        np.abs(crops[20:58:2] - steady[20 + lag : 58 + lag : 2]).mean() for lag in (-1, 0, 1)
    )
    assert right < 0.6 * min(early, late)  # gray levels; about 3 are left by the two encodings
    assert right < 3.1
    assert result.audio_delay == pytest.approx(0, abs=1.5)


def test_names_with_spaces_quotes_line_breaks_and_other_letters(tmp_path, crop):
    for name in ("a b", 'it\'s "q"', "line\nbreak", "Grüße 北京", "-rf; $(x)"):
        assert crop(talking_head(tmp_path / f"{name}.mkv", frames=6)).ok


@pytest.mark.parametrize(
    ("frames", "sound", "reason"),
    [
        (noise_frames(), tone(0.4), "no_face"),
        (moving_face(6), None, "no_audio"),
        (None, tone(0.4), "no_video"),
        (moving_face(3), tone(0.12), "too_short"),
    ],
)
def test_reasons(tmp_path, crop, frames, sound, reason):
    result = crop(write_clip(tmp_path / "clip.mkv", frames, sound))
    assert result.reason == reason
    assert result.message
    assert not crop.video.exists()
    assert not crop.audio.exists()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.97, 0.999])
def test_a_truncated_mp4_is_unreadable(tmp_path, crop, share):
    """Wherever it is cut: in the index, in a frame, in the sound."""
    path = talking_head(tmp_path / "clip.mp4", frames=30)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert crop(path).reason == "unreadable"
    assert not crop.video.exists()


@pytest.mark.parametrize("content", [b"", b"no video" * 500])
def test_broken_files_are_unreadable(tmp_path, crop, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    result = crop(path)
    assert result.reason == "unreadable"
    assert "clip.mp4" in result.message


def test_a_folder_that_cannot_be_written(tmp_path, mesh):
    (tmp_path / "taken").write_text("")
    clip = talking_head(tmp_path / "clip.mkv")
    result = crop_clip(
        clip, tmp_path / "taken" / "v.mp4", tmp_path / "taken" / "a.wav", backend=OpenCVBackend(mesh=mesh)
    )
    assert result.reason == "write_failed"
    assert "a.wav: " in result.message


@pytest.mark.parametrize(
    ("first", "last", "share"), [(0, 12, 1.0), (3, 12, 0.75), (0, 5, 5 / 12), (0, 1, 1 / 12)]
)
def test_the_share_of_frames_with_a_face_is_limited(tmp_path, crop, first, last, share):
    frames = moving_face(12, 1.0)
    frames[:first], frames[last:] = 99, 99
    clip = write_clip(tmp_path / "clip.mkv", frames, tone(0.48))
    result = crop(clip)
    assert (result.reason, result.face_share) == (
        "ok" if share > 0.8 else "face_lost",
        pytest.approx(share, abs=1e-3),
    )
    assert crop(clip, min_face=share - 0.01).ok
    assert crop(clip, stride=3, min_face=0).face_share == pytest.approx(share, abs=0.17)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_that_is_turned_without_saying_so_is_cropped_upright(tmp_path, crop, turns):
    frames = moving_face(6, 1.0)
    assert crop(write_clip(tmp_path / "upright.mkv", frames, tone(0.24))).ok
    upright = read_video(crop.video).astype(float)
    result = crop(write_clip(tmp_path / "turned.mkv", np.rot90(frames, turns, (1, 2)), tone(0.24)))
    assert result.ok
    assert np.abs(read_video(crop.video) - upright).mean() < 9


def test_crops_are_taken_from_stretched_pixels_in_one_step(tmp_path, crop):
    """Half as wide and displayed at full width: the same crop, at most a little softer."""
    frames = moving_face(6, 1.0)
    assert crop(write_clip(tmp_path / "square.mkv", frames, tone(0.24))).ok
    square = read_video(crop.video).astype(float)
    narrow = np.stack([cv2.resize(frame, (104, 208), interpolation=cv2.INTER_AREA) for frame in frames])
    assert crop(write_clip(tmp_path / "narrow.mkv", narrow, tone(0.24), aspect=Fraction(2))).ok
    assert np.abs(read_video(crop.video) - square).mean() < 4


@pytest.mark.parametrize(("scale", "reason"), [(1.0, "ok"), (2.0, "outside"), (0.5, "no_face")])
def test_landmarks_of_a_video_of_another_size(tmp_path, mesh, scale, reason):
    clip = talking_head(tmp_path / "clip.mkv", frames=6)
    points = OpenCVBackend(1, mesh).track(VideoReader(clip), "").tracks[0].interpolated(6)
    np.save(tmp_path / "clip.npy", points[..., :2] * scale)
    settings = CropSettings(backend="files", landmarks=str(tmp_path))
    result = crop_clip(clip, tmp_path / "v.mp4", tmp_path / "a.wav", settings, clip="clip")
    assert result.reason == reason


@pytest.mark.parametrize(
    "settings",
    [{"min_face": 1.5}, {"min_inside": -1}, {"size": 95}, {"size": 8}, {"region": "nose"}, {"stride": 0}],
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CropSettings(**settings)


def test_real_clips_are_centred_on_the_mouth(shared_data, crop, mesh):
    for source in sorted((shared_data / "grid").glob("*.mpg")):
        assert crop(source, stride=3, region="face", size=256).ok
        points = [mesh.find(np.repeat(frame[..., None], 3, -1)) for frame in read_video(crop.video)[::15]]
        whole = np.stack(points)
        eyes = whole[:, [263, 362]].mean(1) - whole[:, [33, 133]].mean(1)
        np.testing.assert_allclose(eyes[:, 0], 0.34 * 256, rtol=0.1)
        np.testing.assert_allclose(eyes[:, 1], 0, atol=3)
        np.testing.assert_allclose(whole[:, list(MESH.lips), 0].mean(1), 127.5, atol=5)
