"""Emotions of the toy corpus: heard, seen, labelled, and without effect where they are not wanted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpus.clip import Settings, Slot, Studio
from corpus.emotion import EMOTIONS, Emotion, Expression, draw_emotion
from corpus.face import TalkingFace
from corpus.files import write_clip
from corpus.look import draw_look
from corpus.motion import head_motion
from corpus.photographs import EYE_DISTANCE, Portrait
from corpus.visemes import VISEMES
from corpus.voices import Voice

from av_ssl.corpora import read_corpus
from av_ssl.media.face_mesh import FaceMesh

SIZE = 160
VOICE = Voice("en-us", 150, 50, 50)
BY_NAME = {emotion.name: emotion for emotion in EMOTIONS}
BROWS, EYES, MOUTH_CORNERS = (105, 334), (33, 263), (61, 291)


def found(face: TalkingFace, expression: Expression) -> np.ndarray:
    """Landmarks that the face mesh finds in one frame, in eye distances."""
    head = head_motion(1, 25.0, SIZE, np.random.default_rng(0))
    track = np.array([VISEMES["rest"]])
    frame = face.render(track, head, np.ones(1), np.random.default_rng(0), expression)[0]
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
def face(portraits: list[Portrait]) -> TalkingFace:
    return TalkingFace(draw_look(portraits[2], np.random.default_rng(2)), SIZE, expressive=True)


def test_brows_and_corners_are_seen(face: TalkingFace) -> None:
    rest_brows, rest_corners = heights(found(face, Expression()))
    raised, _ = heights(found(face, BY_NAME["surprised"].expression))
    lowered, _ = heights(found(face, BY_NAME["angry"].expression))
    assert lowered < rest_brows < raised
    _, smiling = heights(found(face, BY_NAME["happy"].expression))
    _, sad = heights(found(face, BY_NAME["sad"].expression))
    assert sad < rest_corners < smiling


def test_the_mouth_goes_where_the_truth_says(face: TalkingFace) -> None:
    head = head_motion(1, 25.0, SIZE, np.random.default_rng(0))
    track = np.array([VISEMES["rest"]])
    rest, smile = (face.lip_truth(track, head, each).centre[0, 1] for each in (None, Expression(corners=0.1)))
    assert 0 < rest - smile < 0.1 * EYE_DISTANCE


def test_voices() -> None:
    assert BY_NAME["neutral"].voice(VOICE) == VOICE
    happy, sad = BY_NAME["happy"].voice(VOICE), BY_NAME["sad"].voice(VOICE)
    assert sad.pitch < VOICE.pitch < happy.pitch
    assert sad.words_per_minute < VOICE.words_per_minute < happy.words_per_minute
    assert sad.pitch_range < VOICE.pitch_range < happy.pitch_range
    extreme = Emotion("shrill", pitch=90, pitch_range=9).voice(VOICE)
    assert (extreme.pitch, extreme.pitch_range) == (99, 99)


def test_strength() -> None:
    surprised = BY_NAME["surprised"]
    assert surprised.at(0).voice(VOICE) == VOICE
    assert surprised.at(0).expression == Expression()
    assert surprised.at(0.5).expression.brows == pytest.approx(0.07)
    names = [draw_emotion(number, np.random.default_rng(number)).name for number in range(10)]
    assert names == [emotion.name for emotion in EMOTIONS] * 2


def test_a_clip_and_its_labels(portraits: list[Portrait], tmp_path: Path) -> None:
    # Clip 10 of four speakers is the third of speaker 2: sad.
    slot = Slot("test", 10, 4)
    plain = Studio(Settings(difficulty=0), portraits).record(slot)
    clip = Studio(Settings(difficulty=0, emotions=True), portraits).record(slot)
    assert (plain.emotion, clip.emotion) == ("", "sad")
    assert [word.label for word in clip.words] == [word.label for word in plain.words]
    assert len(clip.frames) > len(plain.frames)  # slower
    assert np.abs(clip.wave.astype(float)).mean() < np.abs(plain.wave.astype(float)).mean()
    write_clip(tmp_path / "with", clip)
    write_clip(tmp_path / "without", plain)
    assert not list((tmp_path / "without").rglob("*.emo"))
    alignment = tmp_path / "without" / "alignments" / f"{slot.name}.json"
    assert "emotion" not in json.loads(alignment.read_text())
    read = read_corpus("folder", tmp_path / "with")[slot.name]
    assert (read.speaker, read.labels) == ("t002", {"emo": "sad"})
