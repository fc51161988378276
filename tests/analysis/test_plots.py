"""Features in two dimensions, word error rates in noise, and what figures show of them."""

import math

import numpy as np
import pytest
import yaml

from av_ssl.analysis.plots import (
    CLEAN,
    OTHERS,
    NoiseResult,
    by_method,
    draw_frames,
    draw_noise,
    draw_similarity,
    project,
    read_results,
    read_table,
    save,
)
from av_ssl.errors import DataError, MediaError

RNG = np.random.default_rng(0)
GROUPS = np.repeat([0, 1], 40)
X = RNG.normal(size=(80, 10)) + 8 * GROUPS[:, None]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_groups_stay_apart(method):
    points = project(X, method)
    assert points.shape == (80, 2)
    centres = [points[group == GROUPS].mean(axis=0) for group in (0, 1)]
    spread = max(points[group == GROUPS].std() for group in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread
    np.testing.assert_array_equal(points, project(X, method))


def test_channels_that_never_change_and_few_points():
    assert np.isfinite(project(np.ones((5, 3)) * np.arange(5)[:, None] ** [0, 1, 2], "tsne")).all()
    with pytest.raises(DataError, match="3 frames are too few"):
        project(X[:3], "pca")


def test_methods():
    with pytest.raises(DataError, match="one of tsne, pca, umap"):
        project(X, "lda")


def results(folder, rate="12.34", subset="test", **task):
    folder.mkdir(exist_ok=True)
    options = {"task": {"noise_wav": "noise", "noise_prob": 1.0, "noise_snr": "0", **task},
               "common_eval": {"path": "/models/av2vec_av/checkpoint_best.pt"}}  # fmt: skip
    (folder / f"options-{subset}.yaml").write_text(yaml.safe_dump(options))
    (folder / f"generate-{subset}.txt").write_text(
        f"H-0\t-1\ta\nGenerate {subset} with beam=8: WER: {rate}\n"
    )
    return folder


def test_a_results_folder(tmp_path):
    folder = results(tmp_path / "r", noise_snr="-5")
    assert read_results(folder) == [NoiseResult("av2vec_av", -5.0, 12.34)]
    assert read_results(folder, "AV2vec") == [NoiseResult("AV2vec", -5.0, 12.34)]
    assert read_results(results(tmp_path / "clean", noise_prob=0.0))[0].snr == CLEAN
    assert read_results(results(tmp_path / "no_list", noise_wav=None))[0].snr == CLEAN
    results(folder, "50.0", "valid", noise_snr="5")
    assert [(row.snr, row.rate) for row in read_results(folder)] == [(-5, 12.34), (5, 50)]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"noise_prob": 0.25}, "noise was in 25% of the clips"),
        ({"noise_snr": "(-5,5)"}, "at \\(-5,5\\) dB"),
        ({"noise_snr": None}, "noise_snr is None"),
    ],
)
def test_noise_of_no_single_ratio(task, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_results(results(tmp_path / "r", **task))


def test_folders_that_hold_no_rate(tmp_path):
    with pytest.raises(DataError, match=r"has no options-\{subset\}\.yaml"):
        read_results(tmp_path)
    folder = results(tmp_path / "r")
    (folder / "generate-test.txt").write_text("H-0\t-1\ta\n")
    with pytest.raises(DataError, match=r"generate-test\.txt: "):
        read_results(folder)
    (folder / "generate-test.txt").unlink()
    with pytest.raises(DataError, match=r"generate-test\.txt: "):
        read_results(folder)
    (folder / "options-test.yaml").write_text("task: {}\n")
    with pytest.raises(DataError, match=r"options-test\.yaml: "):
        read_results(folder)
    (folder / "options-test.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"options-test\.yaml: "):
        read_results(folder)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_a_table(separator, tmp_path):
    rows = [("wer", "method", "snr"), ("50", "A", "0"), ("20.5", "A", "clean"), ("60", "B", "-5")]
    path = tmp_path / "rates.tsv"
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n\n")
    found = read_table(path)
    assert found == [NoiseResult("A", 0, 50), NoiseResult("A", math.inf, 20.5), NoiseResult("B", -5, 60)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: .* method, snr, wer"),
        ("method,snr\nA,0\n", "line 1: lacks wer"),
        ("method,snr,wer\nA,0,50\nA,loud,50\n", "line 3: needed"),
        ("method,snr,wer\nA,0\n", "line 2: needed"),
    ],
)
def test_tables_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "rates.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "rates.csv")


def test_seeds_of_one_method_stand_together():
    measured = [("A", CLEAN, 10), ("A", 0, 50), ("B", 0, 60), ("A", 0, 54)]
    rows = [NoiseResult(*row) for row in measured]
    assert by_method(rows) == {"A": {0: [50, 54], CLEAN: [10]}, "B": {0: [60]}}
    assert list(by_method(rows)["A"]) == [0, CLEAN]


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
    with pytest.raises(MediaError, match=r"file/noise\.png: "):
        save(figure, tmp_path / "file" / "noise.png")
