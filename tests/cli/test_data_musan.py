"""`av-ssl data musan` on a small MUSAN."""

import re

import numpy as np
import pytest

from av_ssl.cli.main import main
from av_ssl.media.audio import read_plain_wav, write_audio
from tests.corpora import trees

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


def read_lists(out):
    return {
        kind: {
            split: (out / "musan" / kind / f"{split}.tsv").read_text().splitlines()
            for split in ("train", "valid", "test")
        }
        for kind in KINDS
    }


def test_all_lists(musan, data):
    assert main(["data", "musan", str(musan), str(data), *SMALL]) == 0
    lists = read_lists(data)
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


def test_no_recording_and_no_speaker_is_in_two_splits(musan, data):
    assert main(["data", "musan", str(musan), str(data), *SMALL]) == 0
    lists = read_lists(data)
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
    assert main(["data", "musan", str(musan), str(data), *SMALL]) == 0
    lists = read_lists(data)
    babble = read_plain_wav(lists["babble"]["train"][0])
    assert main(["data", "musan", str(musan), str(data), *SMALL[:-1], "2"]) == 0
    assert read_lists(data) == lists
    np.testing.assert_array_equal(read_plain_wav(lists["babble"]["train"][0]), babble)


def test_without_training_clips_no_speech(musan, tmp_path, caplog):
    out = tmp_path / "empty"
    assert main(["data", "musan", str(musan), str(out), *SMALL]) == 0
    assert f"{out / 'train.tsv'}: " in caplog.text
    assert not (out / "musan/speech").exists()
    assert len((out / "musan/all/train.tsv").read_text().splitlines()) == 3 * 40


def test_another_corpus_and_too_little(musan, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["data", "musan", str(trees.lrs3(tmp_path / "lrs3")), out]) == 1
    assert re.search(r"lrs3: .*music/, noise/ and speech/.* LRS3", capsys.readouterr().err)
    assert main(["data", "musan", str(musan / "music"), out]) == 1
    assert "musan/music: " in capsys.readouterr().err
    for path in (musan / "noise").rglob("*.wav"):
        recording(path, 1, 0)
    assert main(["data", "musan", str(musan), out, *SMALL]) == 1
    assert "noise/train.tsv: " in capsys.readouterr().err
    (musan / "speech").rename(tmp_path / "speech")
    assert main(["data", "musan", str(musan), out, *SMALL]) == 1
    assert "musan/speech: " in capsys.readouterr().err
