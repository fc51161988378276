"""Detector and mesh on the photograph of one face."""

import numpy as np
import pytest

from av_ssl.media.face_mesh import LEFT_EYE_OUTER, MODELS, RIGHT_EYE_OUTER, Region
from tests.media.synthetic import face, noise_frames


def test_points_of_a_photograph(mesh):
    points = mesh.find(face())
    assert points.shape == (468, 3)
    assert points.dtype == np.float32
    # Read off the image by eye: outer eye corners and the middle of the lips.
    np.testing.assert_allclose(points[RIGHT_EYE_OUTER, :2], [75, 81], atol=3)
    np.testing.assert_allclose(points[LEFT_EYE_OUTER, :2], [137, 84], atol=3)
    np.testing.assert_allclose(points[[13, 14], :2].mean(0), [103, 126], atol=4)


def test_turned_face_has_turned_points(mesh):
    upright, turned = mesh.find(face()), mesh.find(np.ascontiguousarray(np.rot90(face(), -1)))
    # A turn by 90 degrees clockwise takes (x, y) to (H - 1 - y, x).
    expected = np.stack([207 - upright[:, 1], upright[:, 0]], axis=1)
    assert np.abs(turned[:, :2] - expected).mean() < 4


def test_two_faces_side_by_side(mesh):
    image = np.concatenate([face(), face()], axis=1)
    faces = sorted(mesh.detect(image), key=lambda found: found.box[0, 0])
    assert len(faces) == 2
    np.testing.assert_allclose(faces[1].box[:, 0] - faces[0].box[:, 0], 208, atol=4)
    assert all(found.score > 0.5 and found.area > 3000 for found in faces)


@pytest.mark.parametrize("image", [np.zeros((50, 300, 3), np.uint8), noise_frames(1)[0]])
def test_no_face_no_points(mesh, image):
    assert mesh.detect(image) == []
    assert mesh.find(image) is None


def test_region_outside_a_face_has_a_low_score(mesh):
    score, _ = mesh.landmarks(noise_frames(1)[0], Region((48, 48), 96))
    assert score < 0.5


def test_region_around_points_holds_them_all(mesh):
    points = mesh.find(face())
    matrix = Region.around(points).to_mesh()
    inside = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert inside.min() > 0
    assert inside.max() < 192
    eyes = inside[[RIGHT_EYE_OUTER, LEFT_EYE_OUTER], 1]
    assert eyes[0] == pytest.approx(eyes[1], abs=0.01)


def test_models_carry_their_licence():
    assert "Apache License" in (MODELS / "LICENSE").read_text()
    assert "sha256" in (MODELS / "README.md").read_text()
