"""``av-ssl data noise|musan``: lists of babble, of one's own recordings, of a small MUSAN."""

import re

import numpy as np
import pytest

from av_ssl.media.audio import read_plain_wav, write_audio
from tests.corpora import trees

from .conftest import call


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


def read_lists(folder):
    return {split: (folder / f"{split}.tsv").read_text().splitlines() for split in ("train", "valid", "test")}


def test_babble(out):
    words = ["data", "noise", str(out), "--number", "10", "--minutes", "0.5", "--babble-speakers", "3"]
    assert call(*words) == 0
    lists = read_lists(out / "noise")
    assert [len(paths) for paths in lists.values()] == [8, 1, 1]
    first = {path: read_plain_wav(path) for paths in lists.values() for path in paths}
    assert len(first) == 10
    assert all(path.startswith(str(out)) for path in first)
    assert {len(samples) for samples in first.values()} == {48000}
    assert all(samples.std() > 100 for samples in first.values())
    assert call(*words) == 0
    for path, samples in first.items():
        np.testing.assert_array_equal(read_plain_wav(path), samples)


def test_own_recordings_are_split_and_converted_where_needed(out, tmp_path):
    own = tmp_path / "my noise"
    for index in range(10):
        write_audio(own / f"rain {index}.wav", np.full(800, 7, np.int16), rate=16000 if index else 8000)
    assert call("data", "noise", out, "--from", own) == 0
    lists = read_lists(out / "noise")
    assert [len(paths) for paths in lists.values()] == [8, 1, 1]
    listed = sorted(path for paths in lists.values() for path in paths)
    assert str(own / "rain 1.wav") in listed
    converted = [path for path in listed if "noise/own" in path]
    assert len(converted) == 1
    assert len(read_plain_wav(converted[0])) == pytest.approx(1600, abs=16)


def test_unhappy_paths(out, tmp_path, refused):
    assert "absent/train.tsv: " in refused(call("data", "noise", tmp_path / "absent"))
    assert "--minutes" in refused(call("data", "noise", out, "--minutes", "0.001"))
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.wav").write_bytes(b"")
    assert "error: 1 recordings" in refused(call("data", "noise", out, "--from", tmp_path / "few"))
    for number in range(4):
        recording(tmp_path / "few" / f"{number}.wav", 1, number)
    assert f"{tmp_path / 'few' / 'a.wav'}: " in refused(
        call("data", "noise", out, "--from", tmp_path / "few")
    )
    whole = (tmp_path / "few" / "0.wav").read_bytes()
    (tmp_path / "few" / "a.wav").write_bytes(whole[:-2000])
    assert f"{tmp_path / 'few' / 'a.wav'}: is truncated by 2000" in refused(
        call("data", "noise", out, "--from", tmp_path / "few")
    )
    write_audio(tmp_path / "few" / "a.wav", np.zeros(0, np.int16))
    assert f"{tmp_path / 'few' / 'a.wav'}: holds no samples" in refused(
        call("data", "noise", out, "--from", tmp_path / "few")
    )


RATE = 16000
KINDS = ("noise", "music", "babble", "speech", "all")
SMALL = ["--babble-number", "20", "--babble-speakers", "3", "--lines", "40", "--workers", "1"]


def recording(path, seconds, seed):
    samples = np.random.default_rng(seed).integers(-3000, 3000, round(seconds * RATE))
    write_audio(path, samples.astype(np.int16))


@pytest.fixture
def musan(tmp_path):
    """Ten recordings of each kind; noise-4 is too short, music is long enough for three pieces."""
    root = tmp_path / "musan"
    for number in range(10):
        recording(root / f"music/fma/music-fma-{number:04d}.wav", 24, number)
        seconds = 2 if number == 4 else 5
        recording(root / f"noise/free-sound/noise-free-sound-{number:04d}.wav", seconds, number)
        recording(root / f"speech/librivox/speech-librivox-{number:04d}.wav", 6, number)
        (root / "speech/librivox/ANNOTATIONS").write_text("not a recording\n")
    return root


@pytest.fixture
def data(tmp_path):
    """Ten speakers with two clips of a second and, of one speaker, a long one."""
    out = tmp_path / "data"
    lines, speakers = ["/"], []
    for number in range(21):
        name = f"clip{number:02d}"
        recording(out / f"audio/{name}.wav", 22 if number == 20 else 1, number)
        lines.append(f"{name}\t{out}/video/{name}.mp4\t{out}/audio/{name}.wav\t25\t16000")
        speakers.append(f"s{number // 2}")
    (out / "train.tsv").write_text("\n".join(lines) + "\n")
    (out / "train.spk").write_text("\n".join(speakers) + "\n")
    return out


def musan_lists(data):
    return {kind: read_lists(data / "musan" / kind) for kind in KINDS}


def test_all_lists(musan, data):
    assert call("data", "musan", musan, data, *SMALL) == 0
    lists = musan_lists(data)
    sizes = {kind: [len(paths) for paths in splits.values()] for kind, splits in lists.items()}
    assert sizes["music"] == [24, 3, 3]  # 10 + 10 + 4 s of each
    assert sum(sizes["noise"]) == 9
    assert sizes["babble"] == [16, 2, 2]
    assert sum(sizes["speech"]) == 21
    assert sizes["all"] == [4 * 40, 4 * 4, 4 * 4]
    for kind in KINDS[:4]:
        paths = [path for split in lists[kind].values() for path in split]
        assert len(set(paths)) == len(paths)
        assert [len(set(lists["all"][split]) & set(lists[kind][split])) > 0 for split in lists[kind]] == [
            True
        ] * 3
        lengths = {len(read_plain_wav(path)) / RATE for path in paths}
        assert lengths == {"music": {10, 4}, "noise": {5}, "babble": {10}, "speech": {1, 20}}[kind]
    for split, paths in lists["all"].items():
        counts = [sum(path in set(lists[kind][split]) for path in paths) for kind in KINDS[:4]]
        assert counts == [len(paths) // 4] * 4
    # No recording and no speaker is in two splits.
    speakers = dict(
        zip(
            (row.split("\t")[2] for row in (data / "train.tsv").read_text().splitlines()[1:]),
            (data / "train.spk").read_text().split(),
            strict=True,
        )
    )
    music = [{path.rpartition("_")[0] for path in paths} for paths in lists["music"].values()]
    speech = [{speakers.get(path, "s10") for path in paths} for paths in lists["speech"].values()]
    for groups in (music, speech):
        assert len(set.union(*groups)) == sum(map(len, groups)) >= 3


def test_the_same_seed_gives_the_same_lists_on_any_number_of_processes(musan, data):
    assert call("data", "musan", musan, data, *SMALL) == 0
    lists = musan_lists(data)
    babble = read_plain_wav(lists["babble"]["train"][0])
    assert call("data", "musan", musan, data, *SMALL[:-1], "2") == 0
    assert musan_lists(data) == lists
    np.testing.assert_array_equal(read_plain_wav(lists["babble"]["train"][0]), babble)


def test_without_training_clips_no_speech(musan, tmp_path, caplog):
    out = tmp_path / "empty"
    assert call("data", "musan", musan, out, *SMALL) == 0
    assert f"{out / 'train.tsv'}: " in caplog.text
    assert not (out / "musan/speech").exists()
    assert len((out / "musan/all/train.tsv").read_text().splitlines()) == 3 * 40


def test_another_corpus_and_too_little(musan, tmp_path, refused):
    out = str(tmp_path / "out")
    assert re.search(
        r"lrs3: .*music/, noise/ and speech/.* LRS3",
        refused(call("data", "musan", trees.lrs3(tmp_path / "lrs3"), out)),
    )
    assert "musan/music: " in refused(call("data", "musan", musan / "music", out))
    for path in (musan / "noise").rglob("*.wav"):
        recording(path, 1, 0)
    assert "noise/train.tsv: " in refused(call("data", "musan", musan, out, *SMALL))
    (musan / "speech").rename(tmp_path / "speech")
    assert "musan/speech: " in refused(call("data", "musan", musan, out, *SMALL))
