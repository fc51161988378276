from __future__ import annotations

import numpy as np
import pytest
from corpus import photographs
from corpus.clip import Clip
from corpus.face import TalkingFace
from corpus.look import UPPER_OUTER, draw_look
from corpus.motion import head_motion
from corpus.photographs import CANVAS, EYE_DISTANCE, LEFT_EYE, RIGHT_EYE, PhotographError, Portrait
from corpus.visemes import VISEMES, Viseme

from av_ssl.media.face_mesh import FaceMesh

UPPER_INNER_MIDDLE, LOWER_INNER_MIDDLE = 13, 14
SIZE = 160


def stands(face: TalkingFace, *visemes: Viseme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, centres and gaps of a still head."""
    track = np.array(visemes)
    head = np.repeat(head_motion(1, 25.0, SIZE, np.random.default_rng(0)), len(track), axis=0)
    frames = face.render(track, head, np.ones(len(track)), np.random.default_rng(0))
    truth = face.lip_truth(track, head)
    return frames, truth.centre, truth.gap


@pytest.fixture(scope="module", params=range(4), ids=["astronaut", "mirrored", "hopper", "hopper_mirrored"])
def face(request: pytest.FixtureRequest, portraits: list[Portrait]) -> TalkingFace:
    return TalkingFace(draw_look(portraits[request.param], np.random.default_rng(request.param)), SIZE)


def test_portraits_have_their_eyes_in_one_place(portraits: list[Portrait]) -> None:
    assert len(portraits) == 4
    for portrait in portraits:
        assert portrait.picture.shape == (CANVAS, CANVAS, 3)
        assert portrait.landmarks.shape == (468, 2)
        right, left = portrait.landmarks[RIGHT_EYE], portrait.landmarks[LEFT_EYE]
        np.testing.assert_allclose(left - right, [EYE_DISTANCE, 0], atol=1e-3)
        np.testing.assert_allclose((left + right) / 2, [CANVAS / 2, CANVAS / 2 - 20], atol=1e-3)


def test_a_photograph_without_a_face_is_named() -> None:
    with pytest.raises(PhotographError, match="astronaut"):
        photographs.load_portraits(lambda picture: None)


def test_a_missing_photograph_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photographs._FILES, "astronaut", ("skimage", ("data", "nobody.png")))
    with pytest.raises(PhotographError, match=r"pip install 'av_ssl\[toy\]'"):
        photographs.load_portraits(lambda picture: None)


def test_speakers_of_one_photograph_look_different(portraits: list[Portrait]) -> None:
    one, other = (draw_look(portraits[0], np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(one.picture.astype(float) - other.picture).mean() > 5
    assert np.abs(one.landmarks - other.landmarks)[UPPER_OUTER].mean() > 0.5


def test_shut_lips_have_no_gap_and_open_vowels_a_dark_one(face: TalkingFace) -> None:
    frames, centres, gaps = stands(face, VISEMES["pbm"], VISEMES["ah"])
    assert gaps[0] == 0
    assert 8 < gaps[1] < 20  # pixels
    x, y = np.round(centres).astype(int)[1]
    shut, opened = (frame[y - 4 : y + 5, x - 4 : x + 5].mean() for frame in frames)
    assert opened < 0.6 * shut


def test_the_upper_face_does_not_move(face: TalkingFace) -> None:
    frames, _, _ = stands(face, VISEMES["rest"], VISEMES["ah"])
    change = np.abs(frames[0].astype(float) - frames[1]).mean(-1)
    assert change[:60].mean() < 3  # camera noise alone is 1.7
    assert change[90:140, 50:110].mean() > 8


def test_rendering_is_reproducible(face: TalkingFace) -> None:
    np.testing.assert_array_equal(stands(face, VISEMES["ah"])[0], stands(face, VISEMES["ah"])[0])


@pytest.mark.parametrize("size", [96, 256])
def test_lips_are_where_they_are_said_to_be_at_any_size(
    size: int, portraits: list[Portrait], face_mesh: FaceMesh
) -> None:
    face = TalkingFace(draw_look(portraits[0], np.random.default_rng(0)), size)
    track, head = np.array([VISEMES["eh"]]), head_motion(1, 25.0, size, np.random.default_rng(3))
    points = face_mesh.find(face.render(track, head, np.ones(1), np.random.default_rng(0))[0])
    assert points is not None
    centre = (points[61, :2] + points[291, :2] + points[0, :2] + points[17, :2]) / 4
    assert np.abs(centre - face.lip_truth(track, head).centre[0]).max() < 0.02 * size


def test_a_face_detector_finds_every_face_and_follows_the_mouth(
    clips: list[Clip], face_mesh: FaceMesh
) -> None:
    correlations = []
    for clip in clips:
        meshes = [face_mesh.find(frame) for frame in clip.frames[::2]]
        found = [mesh for mesh in meshes if mesh is not None]
        assert len(found) == len(meshes)
        measured = [mesh[LOWER_INNER_MIDDLE, 1] - mesh[UPPER_INNER_MIDDLE, 1] for mesh in found]
        correlations.append(np.corrcoef(measured, clip.lips.gap[::2])[0, 1])
    assert min(correlations) > 0.85
    assert np.mean(correlations) > 0.92
