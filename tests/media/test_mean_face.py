"""AV-HuBERT's mean-face file, which is not ours to ship: here a made-up one of its form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.alignment import IBUG, MESH, OWN, crop_transforms, load_mean_face

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


def test_our_own_face_shows_the_same_place_through_either_way():
    assert OWN.points[:, 0].sum() == pytest.approx(0)
    assert OWN.mouth_scale * 96 == 54


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
