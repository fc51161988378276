"""One clip: what comes out, and which reason is given when nothing does."""

import numpy as np
import pytest

from av_ssl.media import cropping
from av_ssl.media.alignment import LIPS
from av_ssl.media.audio import read_audio
from av_ssl.media.cropping import CropSettings, crop_clip
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.video import read_video
from tests.media.synthetic import face, moving_face, noise_pictures, talking_head, tone, write_clip


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh()


@pytest.fixture
def crop(tmp_path, mesh):
    """Crops a clip into `video` and `audio` of the test's folder."""

    def run(source, **settings):
        return crop_clip(source, tmp_path / "v.mp4", tmp_path / "a.wav", CropSettings(**settings), mesh)

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


def test_two_faces_are_counted_and_the_one_that_speaks_is_taken(tmp_path, crop, monkeypatch):
    left, right = moving_face(10, 0.0), np.stack([face()[:, ::-1]] * 10)
    clip = write_clip(tmp_path / "clip.mkv", np.concatenate([left, right], axis=2), tone(0.4))
    taken = []
    monkeypatch.setattr(
        cropping,
        "choose_speaker",
        lambda tracks, energy: taken.extend(tracks) or max(tracks, key=lambda t: t.centre[0]),
    )
    result = crop(clip)
    assert result.ok
    assert result.faces == 2
    assert len(taken) == 2
    mirrored = read_video(crop.video)[5][:, ::-1].astype(float)
    single = write_clip(tmp_path / "single.mkv", left, tone(0.4))
    monkeypatch.undo()
    assert crop(single).ok
    assert np.abs(read_video(crop.video)[5] - mirrored).mean() < 12


@pytest.mark.parametrize(
    ("pictures", "sound", "reason"),
    [
        (noise_pictures(), tone(0.4), "no_face"),
        (moving_face(6), None, "no_audio"),
        (None, tone(0.4), "no_video"),
        (moving_face(3), tone(0.12), "too_short"),
    ],
)
def test_reasons(tmp_path, crop, pictures, sound, reason):
    result = crop(write_clip(tmp_path / "clip.mkv", pictures, sound))
    assert result.reason == reason
    assert result.message
    assert not crop.video.exists()
    assert not crop.audio.exists()


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
    result = crop_clip(clip, tmp_path / "taken" / "v.mp4", tmp_path / "taken" / "a.wav", mesh=mesh)
    assert result.reason == "write_failed"
    assert "free space" in result.message


@pytest.mark.parametrize("settings", [{"size": 95}, {"size": 8}, {"region": "nose"}, {"stride": 0}])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CropSettings(**settings)


def test_real_clips_are_centred_on_the_mouth(shared_data, crop, mesh):
    for source in sorted((shared_data / "grid").glob("*.mpg")):
        assert crop(source, stride=3, region="face", size=256).ok
        points = [mesh.find(np.repeat(picture[..., None], 3, -1)) for picture in read_video(crop.video)[::15]]
        whole = np.stack(points)
        eyes = whole[:, [263, 362]].mean(1) - whole[:, [33, 133]].mean(1)
        np.testing.assert_allclose(eyes[:, 0], 0.34 * 256, rtol=0.1)
        np.testing.assert_allclose(eyes[:, 1], 0, atol=3)
        np.testing.assert_allclose(whole[:, list(LIPS), 0].mean(1), 127.5, atol=5)
