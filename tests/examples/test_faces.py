"""Faces as they are drawn, with and without emotions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpus import look, warp
from corpus.camera import head_motion
from corpus.clip import Clip, Settings, Slot, Studio
from corpus.face import TalkingFace
from corpus.look import (
    PhotographError,
    Portrait,
    draw_look,
)
from corpus.script import EMOTIONS, Emotion, Expression, Traits, Voice, draw_blend
from corpus.visemes import VISEMES, Viseme

from av_ssl.corpora import read_corpus
from av_ssl.media.face_mesh import FaceMesh

UPPER_INNER_MIDDLE, LOWER_INNER_MIDDLE = 13, 14
SIZE = 160


def stands(face: TalkingFace, *visemes: Viseme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, centres and gaps of a still head."""
    track = np.array(visemes)
    head = np.repeat(head_motion(1, 25.0, SIZE, np.random.default_rng(0)), len(track), axis=0)
    frames, truth = face.render(track, head, np.ones(len(track)), np.random.default_rng(0))
    return frames, truth.centre, truth.gap


@pytest.fixture(scope="module", params=range(4), ids=["astronaut", "mirrored", "hopper", "hopper_mirrored"])
def face(request: pytest.FixtureRequest, portraits: list[Portrait]) -> TalkingFace:
    return TalkingFace(draw_look(portraits[request.param], np.random.default_rng(request.param)), SIZE)


def test_a_photograph_without_a_face_is_named() -> None:
    with pytest.raises(PhotographError, match="astronaut"):
        look.load_portraits(lambda image: None)


def test_a_missing_photograph_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(look.PHOTOGRAPHS, "astronaut", ("skimage", "data", "nobody.png"))
    with pytest.raises(PhotographError, match=r"pip install 'av_ssl\[toy\]'"):
        look.load_portraits(lambda image: None)


def test_shut_lips_have_no_gap_and_open_vowels_a_dark_one(face: TalkingFace) -> None:
    frames, centres, gaps = stands(face, VISEMES["pbm"], VISEMES["ah"])
    assert gaps[0] == 0
    assert 8 < gaps[1] < 20  # pixels
    x, y = np.round(centres).astype(int)[1]
    shut, opened = (frame[y - 4 : y + 5, x - 4 : x + 5].mean() for frame in frames)
    assert opened < 0.6 * shut


@pytest.mark.parametrize("size", [96, 256])
def test_lips_are_where_they_are_said_to_be_at_any_size(
    size: int, portraits: list[Portrait], face_mesh: FaceMesh
) -> None:
    face = TalkingFace(draw_look(portraits[0], np.random.default_rng(0)), size)
    track, head = np.array([VISEMES["eh"]]), head_motion(1, 25.0, size, np.random.default_rng(3))
    frames, truth = face.render(track, head, np.ones(1), np.random.default_rng(0))
    points = face_mesh.find(frames[0])
    assert points is not None
    centre = (points[61, :2] + points[291, :2] + points[0, :2] + points[17, :2]) / 4
    assert np.abs(centre - truth.centre[0]).max() < 0.02 * size


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


VOICE = Voice("en-us", 150, 50, 50)
BY_NAME = {emotion.name: emotion for emotion in EMOTIONS}
BROWS, EYES, MOUTH_CORNERS = (105, 334), (33, 263), (61, 291)


def found(face: TalkingFace, expression: Expression) -> np.ndarray:
    """Landmarks that the face mesh finds in one frame, in eye distances."""
    head = head_motion(1, 25.0, SIZE, np.random.default_rng(0))
    track = np.array([VISEMES["rest"]])
    frame = face.render(track, head, np.ones(1), np.random.default_rng(0), expression)[0][0]
    points = FaceMesh().find(frame)
    assert points is not None
    points = points[:, :2]
    return points / np.linalg.norm(points[EYES[1]] - points[EYES[0]])


def heights(points: np.ndarray) -> tuple[float, float]:
    """Of the brows above the eyes, and of the corners of the mouth above its middle."""
    brows = float(points[list(EYES), 1].mean() - points[list(BROWS), 1].mean())
    corners = float(points[[13, 14], 1].mean() - points[list(MOUTH_CORNERS), 1].mean())
    return brows, corners


@pytest.fixture(scope="module")
def expressive(portraits: list[Portrait]) -> TalkingFace:
    return TalkingFace(draw_look(portraits[2], np.random.default_rng(2)), SIZE, expressive=True)


def test_brows_and_corners_are_seen(expressive: TalkingFace) -> None:
    rest_brows, rest_corners = heights(found(expressive, Expression()))
    raised, _ = heights(found(expressive, BY_NAME["surprised"].expression))
    lowered, _ = heights(found(expressive, BY_NAME["angry"].expression))
    assert lowered < rest_brows < raised
    _, smiling = heights(found(expressive, BY_NAME["happy"].expression))
    _, sad = heights(found(expressive, BY_NAME["sad"].expression))
    assert sad < rest_corners < smiling


def test_voices() -> None:
    assert BY_NAME["neutral"].voice(VOICE) == VOICE
    happy, sad = BY_NAME["happy"].voice(VOICE), BY_NAME["sad"].voice(VOICE)
    assert sad.pitch < VOICE.pitch < happy.pitch
    assert sad.words_per_minute < VOICE.words_per_minute < happy.words_per_minute
    assert sad.pitch_range < VOICE.pitch_range < happy.pitch_range
    extreme = Emotion("shrill", pitch=90, pitch_range=9).voice(VOICE)
    assert (extreme.pitch, extreme.pitch_range) == (99, 99)


def test_a_clip_and_its_labels(portraits: list[Portrait], tmp_path: Path) -> None:
    # Clip 10 of four speakers is the third of speaker 2: sad.
    slot = Slot("test", 10, 4)
    plain = Studio(Settings(difficulty=0), portraits).record(slot)
    clip = Studio(Settings(difficulty=0, emotions=True), portraits).record(slot)
    assert (plain.emotion, clip.emotion) == ("", "sad")
    assert [word.label for word in clip.words] == [word.label for word in plain.words]
    assert len(clip.frames) > len(plain.frames)  # slower
    assert np.abs(clip.wave.astype(float)).mean() < np.abs(plain.wave.astype(float)).mean()
    clip.write(tmp_path / "with")
    plain.write(tmp_path / "without")
    assert not list((tmp_path / "without").rglob("*.emo"))
    alignment = tmp_path / "without" / "alignments" / f"{slot.name}.json"
    assert "emotion" not in json.loads(alignment.read_text())
    read = read_corpus("folder", tmp_path / "with")[slot.name]
    assert (read.speaker, read.labels) == ("t002", {"emo": "sad"})


def test_a_field_reproduces_its_points() -> None:
    rng = np.random.default_rng(0)
    points, moves = rng.uniform(0, 256, (40, 2)), rng.normal(0, 5, (40, 2))
    np.testing.assert_allclose(warp.evaluate(warp.fit(points, moves), points, points), moves, atol=1.0)


def test_traits_follow_the_voice_and_shape_the_face(portraits: list[Portrait]) -> None:
    deep, high = (Voice("en", 150, pitch, 50, tilt) for pitch, tilt in ((25, -1.0), (75, 1.0)))
    assert Traits.of(deep) == (1, 0, 1)
    assert Traits.of(high) == (-1, 0, -1)
    large, small = (
        draw_look(portraits[0], np.random.default_rng(0), Traits.of(voice)) for voice in (deep, high)
    )
    chin = 152
    assert large.landmarks[chin, 1] > small.landmarks[chin, 1] + 3
    assert large.image.mean() < small.image.mean() - 5


def test_a_blend_has_a_main_emotion_and_moves_voice_and_face_together() -> None:
    found = [draw_blend(number, np.random.default_rng(number)) for number in range(200)]
    assert [one.name for one in found[:5]] == [one.name for one in EMOTIONS]
    neutral = found[::5]
    pitches, brows = [one.pitch for one in neutral], [one.expression.brows for one in neutral]
    assert np.std(pitches) > 1  # it is a blend, too
    assert np.corrcoef(pitches, brows)[0, 1] > 0.5


def test_an_affine_map_is_exact_everywhere() -> None:
    rng = np.random.default_rng(0)
    points, places = rng.uniform(0, 256, (40, 2)), rng.uniform(0, 256, (100, 2))
    matrix, shift = np.array([[0.1, -0.05], [0.02, 0.08]]), np.array([3.0, -2.0])
    field = warp.evaluate(warp.fit(points, points @ matrix + shift), points, places)
    np.testing.assert_allclose(field, places @ matrix + shift, atol=1e-3)


def test_a_batch_equals_its_parts() -> None:
    rng = np.random.default_rng(0)
    points, moves = rng.uniform(0, 256, (3, 2, 20, 2)), rng.normal(0, 5, (3, 2, 20, 2))
    batch = warp.fit(points, moves)
    assert batch.shape == (3, 2, 23, 2)
    np.testing.assert_allclose(batch[1, 0], warp.fit(points[1, 0], moves[1, 0]), rtol=1e-4, atol=1e-5)
