"""One interface for all sources of landmarks."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.alignment import IBUG, MESH, layout_of
from av_ssl.media.backends import OpenCVBackend
from av_ssl.media.crops import CropSettings, crop_clip
from av_ssl.media.landmark_files import LandmarkError, read_landmarks
from av_ssl.media.tracking import FaceMatcher
from av_ssl.media.video import VideoReader, read_video
from tests.media.synthetic import moving_face, talking_head, tone, write_clip


def as_ibug(mesh: np.ndarray) -> np.ndarray:
    """The points that cropping uses, of mesh points `[468, 3]`, in the 68-point layout."""
    points = np.tile(mesh[:, :2].mean(0), (68, 1))
    points[list(IBUG.stable)] = mesh[list(MESH.stable), :2]
    points[list(IBUG.lips)] = mesh[list(MESH.lips), :2]
    return points


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A clip, the mesh points of its frames `[12, 468, 3]` and its crops."""
    folder = tmp_path_factory.mktemp("talk")
    clip = talking_head(folder / "s 1.mkv")
    backend = OpenCVBackend()
    track = backend.track(VideoReader(clip), "").tracks[0]
    assert crop_clip(clip, folder / "v.mp4", folder / "a.wav", backend=backend).ok
    return clip, track.interpolated(12), read_video(folder / "v.mp4").astype(float)


def crop(clip: Path, folder: Path, **settings: str):
    """Result and crops, None if there are none."""
    result = crop_clip(clip, folder / "v.mp4", folder / "a.wav", CropSettings(**settings), clip=clip.stem)
    return result, read_video(folder / "v.mp4").astype(float) if result.ok else None


def write_landmarks(folder: Path, kind: str, mesh: np.ndarray, clip: str = "s 1") -> str:
    folder.mkdir()
    rows = [as_ibug(points) for points in mesh]
    if kind.startswith("pkl"):
        (folder / f"{clip}.pkl").write_bytes(pickle.dumps(rows, protocol=int(kind[3:])))
    elif kind == "npz":
        np.savez(folder / f"{clip}.npz", data=np.stack(rows))
    else:
        np.save(folder / f"{clip}.npy", mesh if kind == "npy468" else np.stack(rows))
    return str(folder)


@pytest.mark.parametrize("kind", ["npy68", "npy468", "npz", "pkl0", "pkl2", "pkl4", "pkl5"])
def test_ready_made_landmarks_give_the_same_crops(talk, tmp_path, kind):
    clip, mesh, expected = talk
    landmarks = write_landmarks(tmp_path / "landmarks", kind, mesh)
    result, crops = crop(clip, tmp_path, backend="files", landmarks=landmarks)
    assert result.ok
    assert result.faces == 1
    np.testing.assert_allclose(crops, expected, atol=1)


def test_landmarks_are_at_the_rate_of_the_source(tmp_path):
    frames = np.concatenate([moving_face(12, 2.0), moving_face(12, 2.0)[::-1]])
    clip = write_clip(tmp_path / "fast.mkv", frames, tone(0.48), fps=50)
    backend = OpenCVBackend()
    mesh = backend.track(VideoReader(clip, fps=50), "").tracks[0].interpolated(24)
    landmarks = write_landmarks(tmp_path / "landmarks", "npy68", mesh, "fast")
    result, crops = crop(clip, tmp_path, backend="files", landmarks=landmarks)
    assert result.frames == 12
    (tmp_path / "own").mkdir()
    _, expected = crop(clip, tmp_path / "own", stride=1)
    assert np.abs(crops - expected).mean() < 3


def test_missed_frames_are_interpolated_and_none_at_all_is_no_face(talk, tmp_path):
    clip, mesh, expected = talk
    rows: list = [as_ibug(points) for points in mesh]
    rows[5] = rows[6] = None
    folder = tmp_path / "landmarks"
    folder.mkdir()
    (folder / "s 1.pkl").write_bytes(pickle.dumps(rows))
    _, crops = crop(clip, tmp_path, backend="files", landmarks=str(folder))
    assert np.abs(crops - expected).mean() < 1.5
    (folder / "s 1.pkl").write_bytes(pickle.dumps([None] * 12))
    assert crop(clip, tmp_path, backend="files", landmarks=str(folder))[0].reason == "no_face"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"s 1\.pkl: "),
        (b"no pickle", r"s 1\.pkl: "),
        (pickle.dumps("text"), r"s 1\.pkl: .* str "),
        (pickle.dumps([]), r"s 1\.pkl: .* empty"),
        (pickle.dumps([np.zeros((5, 2))] * 12), r"s 1\.pkl: .*\[5, 2\]"),
        (pickle.dumps([np.zeros((68, 2))] * 30), r"s 1\.pkl: .* 30 frames, .*s 1\.mkv .* 12"),
        (pickle.dumps([np.zeros((68, 2))] * 4), r"s 1\.pkl: .* 4 frames, "),
        (pickle.dumps([np.zeros((68, 2)), np.zeros((468, 2))] * 6), r"s 1\.pkl: .*\[68, 468\]"),
    ],
)
def test_landmarks_that_do_not_fit_are_a_reason(talk, tmp_path, content, text):
    folder = tmp_path / "landmarks"
    folder.mkdir()
    if content is not None:
        (folder / "s 1.pkl").write_bytes(content)
    result, _ = crop(talk[0], tmp_path, backend="files", landmarks=str(folder))
    assert result.reason == "no_landmarks"
    assert re.search(text, result.message)


@pytest.mark.parametrize("value", [np.array(["text"]), np.zeros(1, "V8"), np.zeros(1, "f8,O")])
def test_a_pickle_holds_arrays_of_numbers_alone(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([value]))
    with pytest.raises(LandmarkError, match=r"a\.pkl: "):
        read_landmarks(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_keep_values_order_and_byte_order(tmp_path, protocol):
    array = np.arange(136, dtype=np.float32).reshape(68, 2)
    rows = [array, np.asfortranarray(array), array.astype(">f4"), [array, array + 1], array.tolist(), None]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(rows, protocol=protocol))
    *read, missing = read_landmarks(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read, [array] * 5)
    assert missing is None
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.array([array, None], object), protocol=protocol))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "a.pkl")[0], array)


def test_faces_are_matched_to_tracks_by_nearness():
    still, moving = np.random.default_rng(0).uniform(0, 100, (2, 68, 2)).astype(np.float32)
    places = iter([[still, moving + 300], [moving + 305, still], [still], [], [still + 1, moving + 312]])
    matcher = FaceMatcher(lambda frame: next(places))
    for _ in range(5):
        matcher.update(np.zeros((500, 500, 3), np.uint8))
    assert [track.frames for track in matcher.tracks] == [[0, 1, 2, 4], [0, 1, 4]]


@pytest.fixture
def fake_dlib(monkeypatch):
    """Stands for dlib where it is not installed: one box, points on a grid, models that are text files."""

    def shape_predictor(path: str):
        points = int(Path(path).read_text() or 0)
        if not points:
            raise RuntimeError("Error deserializing object")
        parts = [types.SimpleNamespace(x=10 + k % 9, y=20 + k // 9) for k in range(points)]
        return lambda frame, box: types.SimpleNamespace(parts=lambda: parts)

    fake = types.ModuleType("dlib")
    fake.__spec__ = importlib.util.spec_from_loader("dlib", None)
    fake.rectangle = lambda *corners: corners
    fake.get_frontal_face_detector = lambda: lambda frame, upsample: [(0, 0, 50, 50)]
    fake.shape_predictor = shape_predictor
    monkeypatch.setitem(sys.modules, "dlib", fake)


def test_dlib_wants_a_model_of_68_points(fake_dlib, talk, tmp_path):
    model = tmp_path / "model.dat"
    for content, text in ((None, r"model\.dat: "), ("", r"model\.dat: "), ("5", r"model\.dat: .* 5 ")):
        if content is not None:
            model.write_text(content)
        with pytest.raises(DataError, match=text):
            CropSettings(backend="dlib", dlib_model=str(model)).make_backend()
    with pytest.raises(DataError, match="--dlib-model"):
        CropSettings(backend="dlib").make_backend()
    model.write_text("68")
    faces = (
        CropSettings(backend="dlib", dlib_model=str(model), stride=3)
        .make_backend()
        .track(VideoReader(talk[0]), "")
    )
    assert (faces.frames, faces.looked_at) == (12, [0, 3, 6, 9, 11])
    # The made-up points do not follow the face, so that another one seems to take its place.
    assert [frame for track in faces.tracks for frame in track.frames] == [0, 3, 6, 9, 11]


def test_mediapipe_agrees_with_opencv(talk):
    pytest.importorskip("mediapipe")
    clip, mesh, _ = talk
    points = CropSettings(backend="mediapipe").make_backend().track(VideoReader(clip), "").tracks[0]
    assert len(points) == 12
    lips = [points.interpolated(12)[:, list(MESH.lips), :2].mean(1), mesh[:, list(MESH.lips), :2].mean(1)]
    assert np.abs(lips[0] - lips[1]).max() < 2


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    for name in ("mediapipe", "dlib"):
        with pytest.raises(DataError, match=f"--backend {name}: {name} .*pip install"):
            CropSettings(backend=name).make_backend()
    with pytest.raises(DataError, match="--landmarks"):
        CropSettings(backend="files").make_backend()
    with pytest.raises(DataError, match="/none: "):
        CropSettings(backend="files", landmarks="/none").make_backend()
    with pytest.raises(ValueError, match="backend"):
        CropSettings(backend="eyes")


def test_layouts_are_told_by_the_number_of_points():
    assert layout_of(np.zeros((2, 68, 2), np.float32)) is IBUG
    assert layout_of(np.zeros((468, 3), np.float32)) is MESH
    with pytest.raises(ValueError, match="5 points"):
        layout_of(np.zeros((5, 2), np.float32))
