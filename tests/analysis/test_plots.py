"""Pictures: what they show, and files."""

import math

import numpy as np
import pytest

from av_ssl.analysis.plots import OTHERS, draw_frames, draw_noise, draw_similarity, save
from av_ssl.errors import DataError, MediaError

RNG = np.random.default_rng(0)
LABELS = {"phone": np.array(["a"] * 6 + ["b"] * 3 + ["c"]), "viseme": np.array(["x"] * 10)}


def test_frames_have_a_panel_for_each_folder_and_label():
    points = [RNG.normal(size=(10, 2)) for _ in range(3)]
    figure = draw_frames(points, [LABELS] * 3, ["one", "two", "three"], classes=2)
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:3]] == ["one", "two", "three"]
    clouds = figure.axes[0].collections
    assert [cloud.get_label() for cloud in clouds] == ["a", "b", "others"]
    np.testing.assert_array_equal(clouds[0].get_offsets(), points[0][:6])
    assert len({tuple(cloud.get_facecolor()[0][:3]) for cloud in clouds}) == 3
    np.testing.assert_allclose(clouds[2].get_facecolor()[0][:3], int(OTHERS[1:3], 16) / 255)
    assert [cloud.get_label() for cloud in figure.axes[3].collections] == ["x"]


def test_each_panel_has_the_labels_of_its_own_frames():
    """Folders that have other numbers of frames a clip draw other frames."""
    points = [RNG.normal(size=(count, 2)) for count in (3, 2)]
    labels = [{"phone": np.array(["b", "a", "a"])}, {"phone": np.array(["a", "b"])}]
    first, second = draw_frames(points, labels, ["one", "two"], classes=2).axes
    np.testing.assert_array_equal(first.collections[0].get_offsets(), points[0][1:])
    np.testing.assert_array_equal(second.collections[0].get_offsets(), points[1][:1])
    assert [cloud.get_label() for cloud in second.collections] == ["a", "b"]


def test_similarity_maps_have_values_from_0_to_1():
    matrices = [np.array([[0.1, 0.2], [0.3, 1.0], [0.5, 0.6]])] * 2
    figure = draw_similarity(matrices, [[0, 1, 2]] * 2, ["one", "two"], "teacher", [6, 12])
    first = figure.axes[0]
    assert first.images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in first.texts] == ["0.10", "0.20", "0.30", "1.00", "0.50", "0.60"]
    assert (first.get_xlabel(), first.get_ylabel()) == ("layer of teacher", "layer of one")
    assert [text.get_text() for text in first.get_xticklabels()] == ["6", "12"]


def test_noise_has_a_line_a_method_and_clean_clips_at_the_end():
    methods = {"A": {-5.0: [80.0], 0.0: [50.0, 60.0], math.inf: [20.0]}, "B": {0.0: [40.0]}}
    axis = draw_noise(methods).axes[0]
    lines = [container.lines[0] for container in axis.containers]
    assert lines[0].get_ydata().tolist() == [80, 55, 20]
    np.testing.assert_allclose(lines[0].get_xdata(), [-5, 0, 5], atol=0.2)
    assert lines[1].get_ydata().tolist() == [40]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["-5", "0", "clean"]
    assert axis.get_xlabel() == "signal-to-noise ratio (dB)"


def test_clean_clips_alone():
    axis = draw_noise({"A": {math.inf: [20.0]}}).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["clean"]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_files_are_of_the_kind_that_the_suffix_says(suffix, start, tmp_path):
    path = tmp_path / f"new/noise{suffix}"
    size = save(draw_noise({"A": {0.0: [20.0]}}), path)
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size == size


def test_files_that_cannot_be_written(tmp_path):
    figure = draw_noise({"A": {0.0: [20.0]}})
    with pytest.raises(DataError, match=r"noise\.jpg: name a file that ends in \.png, \.svg, \.pdf"):
        save(figure, tmp_path / "noise.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="cannot be written"):
        save(figure, tmp_path / "file" / "noise.png")
