"""`av-ssl data noise`: lists of babble and of one's own recordings."""

import numpy as np
import pytest

from av_ssl.cli.main import main
from av_ssl.media.audio import read_plain_wav, write_audio


@pytest.fixture
def out(tmp_path):
    """Ten speakers with one clip each."""
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    lines = [str(out)]
    for speaker in range(10):
        write_audio(out / f"audio/s{speaker}/1.wav", rng.integers(-3000, 3000, 6400).astype(np.int16))
        lines.append(f"s{speaker}/1\tvideo/x.mp4\taudio/s{speaker}/1.wav\t10\t6400")
    (out / "train.tsv").write_text("\n".join(lines) + "\n")
    return out


def read_lists(out):
    return {
        split: (out / "noise" / f"{split}.tsv").read_text().splitlines()
        for split in ("train", "valid", "test")
    }


def test_babble(out):
    assert (
        main(["data", "noise", str(out), "--number", "10", "--minutes", "0.5", "--babble-speakers", "3"]) == 0
    )
    lists = read_lists(out)
    assert [len(paths) for paths in lists.values()] == [8, 1, 1]
    first = {path: read_plain_wav(path) for paths in lists.values() for path in paths}
    assert len(first) == 10
    assert all(path.startswith(str(out)) for path in first)
    assert {len(samples) for samples in first.values()} == {48000}
    assert all(samples.std() > 100 for samples in first.values())
    assert (
        main(["data", "noise", str(out), "--number", "10", "--minutes", "0.5", "--babble-speakers", "3"]) == 0
    )
    for path, samples in first.items():
        np.testing.assert_array_equal(read_plain_wav(path), samples)


def test_own_recordings_are_split_and_converted_where_needed(out, tmp_path):
    own = tmp_path / "my noise"
    for index in range(10):
        write_audio(own / f"rain {index}.wav", np.full(800, 7, np.int16), rate=16000 if index else 8000)
    assert main(["data", "noise", str(out), "--from", str(own)]) == 0
    lists = read_lists(out)
    assert [len(paths) for paths in lists.values()] == [8, 1, 1]
    listed = sorted(path for paths in lists.values() for path in paths)
    assert str(own / "rain 1.wav") in listed
    converted = [path for path in listed if "noise/own" in path]
    assert len(converted) == 1
    assert len(read_plain_wav(converted[0])) == pytest.approx(1600, abs=16)


def test_unhappy_paths(out, tmp_path, capsys):
    assert main(["data", "noise", str(tmp_path / "absent")]) == 1
    assert "absent/train.tsv: " in capsys.readouterr().err
    assert main(["data", "noise", str(out), "--minutes", "0.001"]) == 1
    assert "--minutes" in capsys.readouterr().err
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.wav").write_bytes(b"")
    assert main(["data", "noise", str(out), "--from", str(tmp_path / "few")]) == 1
    assert "error: 1 recordings" in capsys.readouterr().err
