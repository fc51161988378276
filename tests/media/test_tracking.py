"""Faces over time, and which of them speaks."""

import cv2
import numpy as np
import pytest

from av_ssl.media.speaker import choose_speaker, mouth_sound_correlation
from av_ssl.media.tracking import FaceTracker, Track, track_faces
from tests.media.synthetic import cut_to_another_face, face, moving_face


class Frames(list):
    """Arrays in place of a `VideoReader`."""

    def stored_frames(self):
        return iter(self)

    def show(self, stored):
        return stored


def track_all(mesh, images, stride=1):
    return track_faces(FaceTracker(mesh), Frames(images), stride)


def test_one_moving_face_is_one_track(mesh):
    tracker = track_all(mesh, moving_face(10, shift=3.0))
    assert [len(track) for track in tracker.tracks] == [10]
    nose = tracker.tracks[0].interpolated(10)[:, 1, 0]
    assert nose[-1] - nose[0] == pytest.approx(27, abs=2)


def test_two_faces_are_two_tracks(mesh):
    images = moving_face(6)
    tracker = track_all(mesh, np.concatenate([images, images[::-1]], axis=2))
    assert sorted(len(track) for track in tracker.tracks) == [6, 6]


def test_a_hidden_face_goes_on_as_the_same_track_and_is_interpolated(mesh):
    images = moving_face(12, shift=2.0)
    images[4:7] = 0
    tracker = track_all(mesh, images)
    assert len(tracker.tracks) == 1
    assert tracker.tracks[0].frames == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    nose = tracker.tracks[0].interpolated(12)[:, 1, 0]
    np.testing.assert_allclose(np.diff(nose[3:8]), (nose[7] - nose[3]) / 4, rtol=1e-3)


def test_a_track_ends_where_another_face_takes_its_place(mesh):
    """As at a cut."""
    faces = track_all(mesh, cut_to_another_face(6))
    assert faces.changes == 1
    assert [part.frames for part in faces.tracks] == [list(range(6)), list(range(6, 12))]


def test_a_face_whose_mouth_leaves_the_frame_is_lost(mesh):
    images = np.stack([np.roll(face(), 12 * k, axis=0) for k in range(12)])
    for number, image in enumerate(images):
        image[: 12 * number] = image[12 * number]
    (track,) = track_all(mesh, images).tracks
    assert track.frames == list(range(7))  # the mouth, in row 127 of 208, is inside up to 6 * 12 rows lower


def test_a_stride_is_filled_by_interpolation(mesh):
    images = moving_face(9, shift=2.0)
    every, third = track_all(mesh, images), track_all(mesh, images, stride=3)
    assert third.tracks[0].frames == [0, 3, 6, 8]
    difference = every.tracks[0].interpolated(9) - third.tracks[0].interpolated(9)
    assert np.abs(difference[..., :2]).mean() < 0.7


def test_a_small_face_in_a_large_image_is_found_in_tiles(mesh):
    image = np.zeros((480, 854, 3), np.uint8)
    image[200:304, 600:704] = cv2.resize(face(), (104, 104), interpolation=cv2.INTER_AREA)
    assert mesh.detect(image) == []
    tracker = track_all(mesh, [image])
    assert len(tracker.tracks) == 1
    assert np.linalg.norm(tracker.tracks[0].centre - [653, 252]) < 12


def test_no_face_no_track(mesh):
    tracker = track_all(mesh, np.zeros((3, 64, 64, 3), np.uint8))
    assert tracker.tracks == []


def test_ends_are_copied():
    track = Track()
    for frame, value in ((2, 10.0), (4, 20.0)):
        track.add(frame, np.full((468, 3), value, np.float32))
    np.testing.assert_allclose(track.interpolated(7)[:, 0, 0], [10, 10, 10, 15, 20, 20, 20])


def talking(opening, width=50.0):
    """A track whose lips are `opening` `[T]` eye distances apart."""
    track = Track()
    for frame, gap in enumerate(opening):
        points = np.zeros((468, 3), np.float32)
        points[33], points[263] = (0, 0, 0), (width, 0, 0)
        points[14, 1] = gap * width
        track.add(frame, points)
    return track


@pytest.fixture(scope="module")
def sound():
    """Log energy `[100]` of ten syllables."""
    return (3 + np.sin(np.arange(100) * 0.6)).astype(np.float32)


def test_the_mouth_that_follows_the_sound_wins(sound):
    rng = np.random.default_rng(0)
    speaker = talking(0.1 + 0.05 * (sound - 3) + rng.normal(0, 0.01, 100), width=40)
    listener = talking(0.02 + 0.002 * rng.normal(0, 1, 100), width=80)
    chewer = talking(0.1 + 0.05 * np.sin(np.arange(100) * 0.9), width=80)
    assert choose_speaker([listener, speaker, chewer], sound) is speaker
    assert mouth_sound_correlation(speaker, sound) > 5 * mouth_sound_correlation(listener, sound)


def test_lips_that_lead_the_sound_count_too(sound):
    speaker = talking(0.1 + 0.05 * (np.roll(sound, -3) - 3))
    assert mouth_sound_correlation(speaker, sound) == pytest.approx(
        mouth_sound_correlation(talking(0.1 + 0.05 * (sound - 3)), sound), rel=0.1
    )


@pytest.mark.parametrize(("frames", "wins"), [(70, True), (40, False)])
def test_a_speaker_who_is_seen_half_of_the_time_wins_over_resting_lips(sound, frames, wins):
    short = talking(0.1 + 0.05 * (sound[:frames] - 3))
    long = talking(np.full(100, 0.02), width=80)
    assert choose_speaker([short, long], sound) is (short if wins else long)
    assert choose_speaker([short, long], np.zeros(100, np.float32)) is long


def test_silence_gives_the_larger_face():
    small, large = talking(np.full(50, 0.1), width=40), talking(np.full(50, 0.1), width=80)
    assert choose_speaker([small, large], np.zeros(50, np.float32)) is large
    assert choose_speaker([], np.zeros(50, np.float32)) is None
