"""Recordings in parts: crops as those of `crop_clip`, choice of a face, cuts, bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from av_ssl.errors import MediaError
from av_ssl.media.crops import CropSettings, crop_clip
from av_ssl.media.face_crops import FaceCrops, View, are_mouth_crops
from av_ssl.media.face_mesh import Detection
from av_ssl.media.recording import NoFaceError, Recording, crop_recording
from av_ssl.media.video import read_video
from tests.media.synthetic import (
    cut_to_another_face,
    face,
    moving_face,
    noise_frames,
    syllables,
    talking_face,
    talking_head,
    tone,
    voice,
    write_clip,
)

GRAY = np.full((208, 208, 3), 90, np.uint8)


def wide(*images: np.ndarray) -> np.ndarray:
    """Frames side by side, `[T, H, W, 3]`."""
    return np.concatenate(images, axis=2)


def gray(frames: int) -> np.ndarray:
    return np.repeat(GRAY[None], frames, 0)


def numbered(samples: int) -> np.ndarray:
    """Sound without a pause; each 640th sample tells where it is."""
    number = np.arange(samples)
    return (number // 640 % 1000 + 1000 + number % 2 * 100).astype(np.int16)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A talking head of 75 frames, and its crop by `crop_clip`."""
    folder = tmp_path_factory.mktemp("clip")
    video = talking_head(folder / "clip.mp4", 75, 0.5)
    assert crop_clip(video, folder / "crop.mp4", folder / "crop.wav", CropSettings()).ok
    return video, folder / "crop.mp4"


def test_crops_are_those_of_crop_clip(clip):
    video, crop = clip
    found = crop_recording(video)
    assert (found.frames.shape, found.samples.shape) == ((75, 96, 96), (48000,))
    assert found.face_share == 1
    assert np.abs(found.frames.astype(int) - read_video(crop)).mean() < 1.5  # crop_clip's are encoded


def test_mouth_crops_are_used_as_they_are(clip):
    video, crop = clip
    recording = Recording(crop)
    (part,) = recording.parts()
    assert recording.cropped
    assert recording.streams == ("video",)
    np.testing.assert_array_equal(part.frames, read_video(crop))
    assert not Recording(video).cropped


def test_crops_as_files_of_arrays_and_of_another_size(clip, tmp_path):
    crops = np.repeat(np.repeat(read_video(clip[1]), 2, 1), 2, 2)
    np.save(tmp_path / "crops.npy", crops)
    (part,) = Recording(tmp_path / "crops.npy", numbered(75 * 640)).parts()
    assert np.abs(part.frames.astype(int) - read_video(clip[1])).max() <= 1
    np.testing.assert_array_equal(part.samples, numbered(75 * 640))


@pytest.mark.parametrize("speaker", ["s2", "s30"])
def test_real_crops_are_told_from_real_recordings(shared_data, speaker, tmp_path, mesh):
    clip = sorted((shared_data / "grid" / "videos" / speaker).glob("*.mp4"))[0]
    assert crop_clip(clip, tmp_path / "crop.mp4", tmp_path / "crop.wav").ok
    assert Recording(tmp_path / "crop.mp4").cropped
    square = read_video(clip, gray=False)[::25, 16:272, 52:308]
    assert not are_mouth_crops(list(square), mesh)


def test_what_is_neither_a_face_nor_a_mouth_is_refused():
    with pytest.raises(NoFaceError, match="array"):
        crop_recording(noise_frames(20))


@pytest.fixture(scope="module")
def pair():
    """A small face that does not speak beside one that does, and the sound."""
    opening = syllables(30)
    quiet = talking_face(np.zeros(30))[:, 14:-14, 14:-14]
    quiet = np.pad(quiet, ((0, 0), (14, 14), (14, 14), (0, 0)), "edge")
    return wide(quiet, talking_face(opening)), (voice(opening)[0] * 32767).astype(np.int16)


WHICH = [("left", 1), ("right", 2), ("speaker", 2), ("largest", 2), (1, 1)]


@pytest.mark.parametrize(("rule", "number"), WHICH)
def test_which_face(pair, rule, number):
    (part,) = Recording(*pair).parts(rule)
    assert part.face == number


def test_all_faces():
    images = wide(moving_face(25, 0.2), moving_face(25, 0.0)[:, :, ::-1])
    parts = list(Recording(images).parts(all_faces=True))
    assert [part.face for part in parts] == [1, 2]
    assert not list(Recording(gray(25)).parts(all_faces=True))


def test_a_cut_to_another_place_and_a_lost_face():
    images = np.concatenate(
        [
            wide(moving_face(30, 0.1), gray(30)),
            wide(gray(30), moving_face(30, 0.1)),
            wide(gray(40), gray(40)),
        ]
    )
    first, second, lost = Recording(images, numbered(100 * 640)).parts()
    assert [first.face, second.face, lost.face, lost.frames] == [1, 2, None, None]
    assert [part.start for part in (first, second, lost)] == pytest.approx([0, 1.2, 2.4], abs=0.12)
    for part in (first, second, lost):
        assert part.samples[0] == 1000 + round(25 * part.start)
    assert len(first.samples) == 640 * len(first.frames)
    assert lost.end == 4.0


def test_a_cut_to_another_face_at_the_same_place():
    """Neither a part nor the smoothing of its crops crosses the cut; a number belongs to a place."""
    images = cut_to_another_face(30)
    first, second = Recording(images).parts()
    assert (first.face, second.face) == (1, 1)
    assert first.end == second.start == pytest.approx(1.2, abs=0.12)
    alone = crop_recording(images[:30]).frames
    assert np.abs(first.frames[:27].astype(int) - alone[:27]).mean() < 1


def test_a_blink_of_the_detector_does_not_cut():
    images = moving_face(40, 0.5)
    images[12:24] = 0
    (part,) = Recording(images).parts()
    assert len(part.frames) == 40
    assert crop_recording(images).face_share == 1


def crops_of(seconds: int) -> np.ndarray:
    """Mouth crops of any length that take no memory."""
    mouth = crop_recording(moving_face(5)).frames[0]
    return np.broadcast_to(mouth, (25 * seconds, 96, 96))


def test_cuts_at_pauses():
    sound = numbered(40 * 16000)
    sound[16000 * 9 : 16000 * 10] = 0
    sound[16000 * 20 : 16000 * 20 + 8000] = 0
    parts = list(Recording(crops_of(40), sound).parts())
    assert [part.start for part in parts] == pytest.approx([0, 9.5, 20.25, 20.25 + 16 - 1.48], abs=0.05)
    assert [part.end for part in parts] == pytest.approx([9.5, 20.25, 36.25, 40], abs=0.05)
    for part in parts:
        assert len(part.samples) == 640 * len(part.frames)
        assert part.samples[-640] in (0, 1000 + round(part.end * 25 - 1) % 1000)


@pytest.mark.parametrize("sound", [None, np.zeros(40 * 16000, np.int16)])
def test_without_sound_parts_overlap(sound):
    parts = list(Recording(crops_of(40), sound).parts())
    assert [(part.start, part.end) for part in parts] == [(0, 16), (14.52, 30.52), (29.04, 40)]


def test_sound_alone_and_streams_of_different_length(tmp_path):
    wav = write_clip(tmp_path / "sound.wav", None, tone(3.0))
    (part,) = Recording(wav).parts()
    assert part.frames is None
    assert len(part.samples) == 48000
    for seconds, expected in ((2.5, [2.0]), (1.0, [2.0]), (4.0, [2.0, 4.0])):
        parts = list(Recording(crops_of(2), numbered(round(seconds * 16000))).parts())
        assert [part.end for part in parts] == expected
        assert [part.frames is None for part in parts] == [False, True][: len(parts)]


class Mesh:
    """Stands for the face mesh: one face that never moves."""

    points = np.random.default_rng(0).uniform(40, 80, (468, 3)).astype(np.float32)

    def detect(self, rgb):
        return [Detection(1.0, np.array([[40, 40], [80, 80]], np.float32), self.points[:6, :2])]

    def landmarks(self, rgb, region):
        return 1.0, self.points


def peak(seconds: int) -> int:
    """Most bytes held while a recording with one face is cut into parts."""
    pieces = (numbered(16000) for _ in range(seconds))
    image = np.random.default_rng(0).integers(0, 255, (120, 120, 3), np.uint8)
    view = View(lambda: image[..., 0].copy(), lambda: image)
    recording = Recording(gray(5), np.zeros(0, np.int16))
    recording._crops = FaceCrops((view for _ in range(25 * seconds)), mesh=Mesh())
    recording._sound._pieces = pieces
    tracemalloc.start()
    try:
        assert sum(len(part.frames) for part in recording.parts()) >= 25 * seconds
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_depend_on_the_length():
    assert 60e6 > 1.15 * peak(30) > peak(60)  # in this order: the first call loads what both need


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((3, 96, 96), np.uint8), "lasts 3 frame"),
        (np.zeros((9, 96, 96), np.float32), "float32"),
        (np.zeros((9, 96), np.uint8), r"\[9, 96\]"),
    ],
)
def test_arrays_that_are_no_recording(frames, text):
    with pytest.raises(MediaError, match=text):
        list(Recording(frames).parts())


def test_a_face_in_a_large_frame_is_cropped_from_a_reduced_one():
    big = np.repeat(np.repeat(wide(gray(5), face()[None].repeat(5, 0)), 5, 1), 5, 2)
    found = crop_recording(big)
    assert np.abs(found.frames[2].astype(int) - crop_recording(moving_face(5, 0.0)).frames[2]).mean() < 6
