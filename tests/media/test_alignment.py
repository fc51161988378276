"""Crops of constant position, scale and rotation, for our mean face and AV-HuBERT's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.alignment import (
    IBUG,
    MESH,
    OWN,
    crop_transforms,
    inside_share,
    load_mean_face,
    smooth,
    warp,
)
from av_ssl.media.face_mesh import FaceMesh
from tests.media.synthetic import face


def mesh_of_mean_face(scale, angle, shift, frames=3):
    """Mesh points `[T, 468, 2]` of the mean face, turned by `angle` radians; lips 1.1 eye distances down."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.zeros((468, 2))
    points[list(MESH.stable)] = OWN.points
    points[list(MESH.lips)] = [0.0, 1.1]
    return np.repeat((points @ turn.T * scale + shift)[None], frames, 0).astype(np.float32)


@pytest.mark.parametrize("size", [96, 48])
@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
def test_eyes_are_54_of_96_pixels_apart_and_the_mouth_is_in_the_middle(angle, size):
    points = mesh_of_mean_face(80.0, angle, [150, 120])
    transform = crop_transforms(points, "mouth", size)[1]
    placed = points[1] @ transform[:, :2].T + transform[:, 2]
    right, left = placed[[33, 133]].mean(0), placed[[263, 362]].mean(0)
    np.testing.assert_allclose(left - right, [54 * size / 96, 0], atol=1e-3)
    np.testing.assert_allclose(placed[list(MESH.lips)].mean(0), (size - 1) / 2, atol=1e-3)


def test_the_face_region_shows_forehead_and_chin():
    image = face()
    points = FaceMesh().find(image)[None]
    transform = crop_transforms(points, "face", 96)[0]
    placed = points[0, :, :2] @ transform[:, :2].T + transform[:, 2]
    assert placed.min() > 0
    assert placed.max() < 96
    assert np.ptp(placed[:, 1]) > 70


def test_a_photograph_is_cropped_around_its_mouth():
    points = FaceMesh().find(face())[None].repeat(2, 0)
    crop = warp(face(), crop_transforms(points, "mouth", 96)[0], 96)
    assert crop.shape == (96, 96, 3)
    # The lips are the reddest part of the face.
    redness = crop[..., 0].astype(float) - crop[..., 1]
    rows, columns = np.nonzero(redness > np.quantile(redness[20:76, 16:80], 0.97))
    near = (abs(rows - 48) < 28) & (abs(columns - 48) < 32)
    assert abs(np.median(rows[near]) - 48) < 9
    assert abs(np.median(columns[near]) - 48) < 9


@pytest.mark.parametrize("frames", [1, 2, 13, 14, 30])
def test_smoothing_does_not_lag_behind_a_moving_head(frames):
    points = 3 * np.arange(frames, dtype=np.float32)[:, None, None] + np.array([[1.0, 2.0]], np.float32)
    np.testing.assert_allclose(smooth(points, 13), points, atol=1e-6)


def test_smoothing_averages_13_frames():
    jump = np.zeros((31, 1, 1), np.float32)
    jump[15] = 13
    np.testing.assert_allclose(smooth(jump, 13)[8:23, 0, 0], [0, *[1] * 13, 0], atol=1e-9)
    noisy = np.random.default_rng(0).normal(0, 1, (500, 1, 1)).astype(np.float32)
    assert smooth(noisy, 13)[20:-20].std() == pytest.approx(1 / np.sqrt(13), rel=0.2)


def test_a_large_face_is_shrunk_without_aliasing_or_shift():
    fine = np.zeros((800, 800), np.uint8)
    fine[:, ::2] = 255  # stripes finer than a pixel of the crop
    fine[400:, :] = 0
    transform = np.array([[0.1, 0, 47.5 - 0.1 * 399.5], [0, 0.1, 47.5 - 0.1 * 399.5]])
    crop = warp(fine, transform, 96).astype(float)
    assert abs(crop[10:40, 10:86].mean() - 127.5) < 2
    assert crop[10:40, 10:86].std() < 3
    assert crop[56:].max() == 0
    # The edge lies exactly in the middle of the crop.
    assert crop[:, 48].sum() / crop[20, 48] == pytest.approx(48, abs=0.6)


@pytest.mark.parametrize(("across", "stretch"), [(0, 1.0), (40, 1.0), (0, 1.4)])
def test_shrinking_agrees_with_blurring_first(across, stretch):
    """Also where the frame shows only a part of the crop, and with pixels that are not square."""
    image = np.random.default_rng(0).integers(0, 255, (400, 400), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 8)
    turn = cv2.getRotationMatrix2D((200, 200), 20, 0.24)
    turn[:, 2] += 47.5 - 200
    turn[:, 2] += [across, 0]
    turn[:, 0] *= stretch
    direct = cv2.warpAffine(image, turn, (96, 96), borderMode=cv2.BORDER_REPLICATE).astype(float)
    assert np.abs(warp(image, turn, 96) - direct)[8:-8, 8:-8].max() <= 4


# Eyes 60 pixels apart in a square of 256, the nose off the middle.
STABLE = np.array([[86.0, 100.0], [110.0, 101.0], [146.0, 101.0], [170.0, 100.0], [130.0, 146.0]])


@pytest.fixture
def mean_face(tmp_path: Path) -> Path:
    points = np.full((68, 2), 128.0)
    points[list(IBUG.stable)] = STABLE
    np.save(tmp_path / "mean.npy", points)
    return tmp_path / "mean.npy"


@pytest.mark.parametrize("layout", [IBUG, MESH])
@pytest.mark.parametrize("size", [96, 48])
def test_stable_points_land_on_the_file_s_and_the_crop_shows_96_of_its_pixels(mean_face, layout, size):
    """A face that is the mean face, turned, doubled and moved, comes back to it, mouth in the middle."""
    turn = 2 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    lips = np.array([133.0, 180.0])
    face = np.zeros((layout.count, 2))
    face[list(layout.stable)] = STABLE
    face[list(layout.lips)] = lips
    points = np.repeat((face @ turn.T + [40, -9])[None], 30, 0).astype(np.float32)
    for transform in crop_transforms(points, "mouth", size, load_mean_face(mean_face)):
        placed = points[0] @ transform[:, :2].T + transform[:, 2]
        expected = (face - lips) * size / 96 + (size - 1) / 2
        np.testing.assert_allclose(placed, expected, atol=2e-3)


def test_landmarks_are_averaged_over_12_frames(mean_face):
    """One frame in which the head jumps moves the crops of the 12 whose window holds it."""
    face = np.zeros((68, 2), np.float32)
    face[list(IBUG.stable)], face[list(IBUG.lips)] = STABLE, [128, 180]
    points = np.repeat(face[None], 41, 0)
    points[20] += 12
    moved = crop_transforms(points, "mouth", 96, load_mean_face(mean_face))
    still = crop_transforms(points[:1], "mouth", 96, load_mean_face(mean_face))
    shift = (moved - still)[:, :, 2].mean(1)
    np.testing.assert_allclose(shift[15:27], -1, atol=1e-4)
    np.testing.assert_allclose(shift[[14, 27]], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (np.zeros((20, 2)), r"a\.npy: .*\[20, 2\]"),
        (np.zeros((68, 2)), r"a\.npy: .* 0\.00 pixels"),
        (None, r"a\.npy: "),
    ],
)
def test_another_file_is_refused(tmp_path, content, text):
    if content is not None:
        np.save(tmp_path / "a.npy", content)
    with pytest.raises(DataError, match=text):
        load_mean_face(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("shift", "angle", "shown", "share"),
    [((0, 0), 0, (48, 48), 1.0), ((24, 0), 0, (48, 48), 0.5), ((-24, 12), 0, (48, 48), 0.375),
     ((0, 0), 180, (9, 9), 0), ((24, 24), 45, (96, 96), 0.957)],
)  # fmt: skip
def test_share_of_a_crop_inside_the_picture(shift, angle, shown, share):
    """A crop of 96 pixels shows a square of 48."""
    turn = cv2.getRotationMatrix2D((0, 0), angle, 2.0)
    turn[:, 2] -= turn[:, :2] @ shift
    assert inside_share(np.stack([turn] * 3), 96, shown) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("shown", "left", "share"), [((16, 16), 0, 1.0), ((16, 8), 0, 0.5), ((16, 16), 3, 13 / 16)]
)
def test_pixels_outside_are_counted(shown, left, share):
    """Crops of 16 pixels at scale 1, of which the first ``left`` columns lie beside the frame."""
    shifted = np.array([[[1.0, 0.0, left], [0.0, 1.0, 0.0]]])
    assert inside_share(shifted, 16, shown) == share
