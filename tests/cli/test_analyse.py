"""`av-ssl analyse probe` and `av-ssl analyse plot` on small folders of features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from av_ssl.analysis.alignments import labelled_frames, shared_clips
from av_ssl.analysis.cka import shared_frames
from av_ssl.analysis.features import FeatureFolder, frame_times
from av_ssl.errors import DataError

from .conftest import call

VISEMES = "lips\tp b\nopen\ta\n-\th\n"
PHONES = ["p", "a", "b", "h"]
CLIPS, FRAMES = 8, 20


@pytest.fixture
def alignments(tmp_path: Path) -> Path:
    """Each clip says p a b h, five frames of 40 ms each; clips 0 and 4 are of one speaker, and so on."""
    folder = tmp_path / "alignments"
    for number in range(CLIPS):
        (folder / "test").mkdir(parents=True, exist_ok=True)
        phones = [[phone, 0.2 * place, 0.2 * place + 0.2] for place, phone in enumerate(PHONES)]
        content = {"speaker": f"s{number % 4}", "phones": phones}
        (folder / "test" / f"{number}.json").write_text(json.dumps(content))
    (tmp_path / "visemes.tsv").write_text(VISEMES)
    return folder


def write_features(
    folder: Path, rate: int = 25, signal: float = 5.0, layers: int = 2, clips: int = CLIPS, missing: int = 0
) -> Path:
    """Layer 1 says the phone as loud as `signal`, layer 0 nothing; clips lack the last `missing` frames."""
    rng = np.random.default_rng(0)
    count = FRAMES * rate // 25 - missing
    phone = np.repeat(np.eye(4), FRAMES * rate // 100, axis=0)[:count]
    x = rng.normal(size=(clips, count, layers, 6)).astype(np.float32)
    x[:, :, 1, :4] += signal * phone
    folder.mkdir(parents=True)
    np.save(folder / "test.npy", x.reshape(-1, layers, 6))
    settings = {"layers": list(range(layers)), "rate": rate, "channels": 6, "format": "npy"}
    (folder / "settings.json").write_text(json.dumps(settings))
    index = "".join(f"test/{number}\t{number * count}\t{count}\n" for number in range(clips))
    (folder / "test.index.tsv").write_text(index)
    return folder


def test_frames_get_the_labels_of_their_times(alignments, tmp_path):
    folder = FeatureFolder(write_features(tmp_path / "a"))
    table = {"p": ("lips",), "b": ("lips",), "a": ("open", "wide"), "h": ()}
    found = labelled_frames(folder, alignments, table)
    assert len(found) == CLIPS * 15  # none of /h/, which the lips do not show
    assert found.labels["phone"][:15].tolist() == ["p"] * 5 + ["a"] * 5 + ["b"] * 5
    # The middle of the third of five frames is the middle of the phone, and so in its second half.
    assert found.labels["viseme"][5:10].tolist() == ["open"] * 2 + ["wide"] * 3
    np.testing.assert_array_equal(found.features[:15], folder.features("test/0")[:15])
    assert found.speakers[0] == "s0"
    assert len(labelled_frames(folder, alignments)) == CLIPS * 20
    drawn = found.drawn(30, seed=1)
    assert len(drawn) == 30
    np.testing.assert_array_equal(drawn.features, found.drawn(30, seed=1).features)


def test_an_empty_label_is_none(alignments, tmp_path):
    """As aligners write silence; labels stay with their frames."""
    path = alignments / "test" / "0.json"
    content = json.loads(path.read_text())
    content["phones"][0][0] = ""
    path.write_text(json.dumps(content))
    folder = FeatureFolder(write_features(tmp_path / "a"))
    found = labelled_frames(folder, alignments)
    assert len(found) == len(found.labels["phone"]) == CLIPS * 20 - 5
    np.testing.assert_array_equal(found.features[:15], folder.features("test/0")[5:])


def test_subsets_may_share_clips(tmp_path):
    path = write_features(tmp_path / "a")
    before = FeatureFolder(path).features("test/0")
    first = np.load(path / "test.npy")[: len(before)]
    np.save(path / "small.npy", first)  # sorted before ``test``, whose rows then count
    np.save(path / "zero.npy", first)  # and after it
    for subset in ("small", "zero"):
        (path / f"{subset}.index.tsv").write_text(f"test/0\t0\t{len(before)}\n")
    folder = FeatureFolder(path)
    for number in range(CLIPS):
        assert folder.features(f"test/{number}").shape == before.shape
    np.testing.assert_array_equal(folder.features("test/0"), before)


def test_probe_prints_a_table_by_layer(alignments, tmp_path, capsys):
    folders = [
        write_features(tmp_path / name / "f", signal=signal) for name, signal in (("good", 9), ("bad", 0))
    ]
    words = [*map(str, folders), "--alignments", str(alignments), "--visemes", str(tmp_path / "visemes.tsv")]
    assert call("analyse", "probe", *words) == 0
    output = capsys.readouterr().out
    assert "on 120 frames of 8 clips" in output
    phones, visemes = output.split("| viseme |")
    assert "| phone | good/f | bad/f |" in phones
    cells = next(line for line in phones.splitlines() if line.startswith("| layer 1")).split("|")
    assert float(cells[2].split()[0]) == 100
    assert float(cells[3].split()[0]) < 55
    assert "3 classes; always the most frequent one" in phones
    assert "2 classes; always the most frequent one: 66.7" in visemes


def test_frames_of_50_and_25_hz_are_compared_by_time(tmp_path):
    slow, fast = (FeatureFolder(write_features(tmp_path / str(rate), rate)) for rate in (25, 50))
    x, y = shared_frames(slow, fast)
    assert x.shape == y.shape == (CLIPS * FRAMES, 2, 6)
    np.testing.assert_array_equal(x[:FRAMES], slow.features("test/0"))
    np.testing.assert_allclose(y[0], fast.features("test/0")[:2].mean(axis=0), atol=1e-6)
    y, x = shared_frames(fast, slow)
    assert len(x) == len(y) == CLIPS * FRAMES
    np.testing.assert_allclose(frame_times(2, 25), [0.02, 0.06])


def test_figures_are_drawn(alignments, tmp_path, capsys):
    one, two, fast = (
        write_features(tmp_path / name, rate) for name, rate in (("x", 25), ("y", 25), ("z", 50))
    )
    labels = ["--alignments", str(alignments), "--visemes", str(tmp_path / "visemes.tsv")]
    figure = tmp_path / "figures" / "frames.png"
    words = [str(one), str(two), *labels, "--method", "pca", "--frames", "50", "--out", str(figure)]
    assert call("analyse", "plot", "frames", *words) == 0
    assert "50 frames of 8 clips by pca" in capsys.readouterr().out
    assert figure.stat().st_size > 1000
    assert call("analyse", "plot", "frames", *words, "--classes", "a") == 0
    assert "40 frames" in capsys.readouterr().out
    short = write_features(tmp_path / "short", missing=6)
    words = [str(one), str(short), *labels, "--method", "pca", "--out", str(figure)]
    assert call("analyse", "plot", "frames", *words) == 0
    assert "112 and 120 frames of 8 clips" in capsys.readouterr().out
    words = ["analyse", "plot", "similarity", str(one), str(two), str(fast)]
    assert call(*words, "--out", tmp_path / "s.svg") == 0
    output = capsys.readouterr().out
    assert "linear CKA of y (rows) and x (columns: layers [0, 1])" in output
    assert "most alike: layer 0 and layer 0 (1.000)" in output
    assert call("analyse", "plot", "similarity", one, "--out", tmp_path / "own.png") == 0
    assert (tmp_path / "rates.csv").write_text("method,snr,wer\nA,0,50\nA,clean,20\n")
    (tmp_path / "lr=0.1").mkdir()
    assert (tmp_path / "lr=0.1" / "rates.csv").write_text("method,snr,wer\nA,0,50\n")
    for word in (tmp_path / "lr=0.1/rates.csv", f"B={tmp_path / 'lr=0.1/rates.csv'}"):
        assert call("analyse", "plot", "noise", word, "--out", tmp_path / "n.svg") == 0
    words = ["analyse", "plot", "noise", f"B={tmp_path / 'rates.csv'}"]
    assert call(*words, "--out", tmp_path / "n.svg") == 0
    assert "2 word error rates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plot frames {one} {labels} --layer 7 --out f.png", "has the layers 0, 1"),
        ("plot frames {one} {fast} {labels} --out f.png", "frames of 25 and 50 Hz"),
        ("plot frames {one} {labels} --only viseme --out f.png", "need --visemes"),
        ("plot frames {one} {labels} --only word --out f.png", "--only word: "),
        ("plot frames {one} {labels} --classes a,none --out f.png", "class 'none' is not said"),
        ("plot frames {one} {labels} --out f.jpg", "name a file that ends in .png"),
        ("plot noise {one} --out f.png", "has no options-{subset}.yaml"),
        ("probe {one} {labels} --folds 5", "5 folds of 4 speakers"),
        ("probe {one} --alignments nowhere", "nowhere: there is no"),
        ("probe nothing {labels}", "nothing: there is no"),
    ],
)
def test_mistakes_are_named(words, message, alignments, tmp_path, refused):
    one, fast = write_features(tmp_path / "one"), write_features(tmp_path / "fast", 50)
    filled = words.format(one=one, fast=fast, labels=f"--alignments {alignments}")
    assert message in refused(call("analyse", *filled.split()))


def test_folders_without_a_clip_in_common(tmp_path):
    one = FeatureFolder(write_features(tmp_path / "one"))
    (tmp_path / "one" / "test.index.tsv").write_text("other\t0\t160\n")
    other = FeatureFolder(tmp_path / "one")
    with pytest.raises(DataError, match=rf"{tmp_path}/one\b.* {tmp_path}/one\b"):
        shared_clips([one, other])
    with pytest.raises(DataError, match=rf"{tmp_path}/one\b.* {tmp_path}/one\b"):
        shared_frames(one, other)
