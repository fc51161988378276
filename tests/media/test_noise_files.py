"""Speakers of a manifest, and their voices mixed into babble."""

from pathlib import Path

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.media.audio import write_audio
from av_ssl.media.noise_files import divide, mix_babble, speakers_of, split_speakers


@pytest.fixture
def manifest(tmp_path):
    """Ten speakers with two clips each; speaker k speaks a constant k + 1."""
    lines = [str(tmp_path)]
    for speaker in range(10):
        for clip in range(2):
            write_audio(tmp_path / f"audio/s{speaker}/{clip}.wav", np.full(1600, speaker + 1, np.int16))
            lines.append(f"train/s{speaker}/{clip}\tvideo/x.mp4\taudio/s{speaker}/{clip}.wav\t2\t1600")
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_speakers_are_folders_and_shared_by_no_two_lists(manifest):
    speakers = speakers_of(manifest)
    assert {name: len(files) for name, files in speakers.items()} == {f"s{k}": 2 for k in range(10)}
    parts = split_speakers(speakers, seed=0)
    assert [len(parts[split]) for split in ("train", "valid", "test")] == [8, 1, 1]
    assert len({name for part in parts.values() for name in part}) == 10


def test_babble_has_the_length_and_is_seeded(manifest):
    speakers = speakers_of(manifest)
    babble = mix_babble(speakers, 6, 5000, (0, 1))
    assert babble.dtype == np.int16
    assert babble.shape == (5000,)
    np.testing.assert_array_equal(babble, mix_babble(speakers, 6, 5000, (0, 1)))
    # Every voice is brought to the same loudness, so constants sum to it.
    assert abs(babble.mean() - 1000) < 2


def test_few_speakers(manifest, caplog):
    everyone = speakers_of(manifest)
    two = dict(list(everyone.items())[:2])
    assert split_speakers(two, seed=0)["test"] == two
    assert "fewer than 10 speakers" in caplog.text
    assert "and recordings" in caplog.text
    assert mix_babble(two, 6, 100, (0,)).shape == (100,)


def test_few_speakers_with_many_recordings_share_voices_and_not_recordings(caplog):
    speakers = {name: [Path(f"{name}/{number}.wav") for number in range(30)] for name in "abc"}
    parts = split_speakers(speakers, seed=1)
    assert "share their voices" in caplog.text
    assert "recordings" not in caplog.text
    for name in speakers:
        lists = [parts[split][name] for split in ("train", "valid", "test")]
        assert [len(files) for files in lists] == [24, 3, 3]
        assert sorted(file for files in lists for file in files) == sorted(speakers[name])


def test_silence_is_mixed_as_silence(tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros(100, np.int16))
    write_audio(tmp_path / "b.wav", np.zeros(0, np.int16))
    babble = mix_babble({"a": [tmp_path / "a.wav"], "b": [tmp_path / "b.wav"]}, 2, 300, (0,))
    assert not babble.any()


def test_clips_in_one_folder_are_speakers_of_their_own(tmp_path):
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na\tv\ta.wav\t1\t640\nb\tv\tb.wav\t1\t640\n")
    assert len(speakers_of(tmp_path / "train.tsv")) == 2


def test_a_list_of_speakers_comes_before_folders(manifest):
    names = [f"p{number // 5}" for number in range(20)]
    manifest.with_suffix(".spk").write_text("\n".join(names) + "\n")
    assert {name: len(files) for name, files in speakers_of(manifest).items()} == {
        f"p{k}": 5 for k in range(4)
    }
    manifest.with_suffix(".spk").write_text("p\n")
    with pytest.raises(DataError, match=r"train\.spk: .* 1 .* 20 "):
        speakers_of(manifest)


def test_a_part_of_a_long_recording_is_read_in_place(tmp_path):
    for name, rate in (("plain", 16000), ("other", 8000)):
        write_audio(tmp_path / f"{name}.wav", np.arange(-8000, 8000, dtype=np.int16), rate)
    for name in ("plain", "other"):
        babble = mix_babble({name: [tmp_path / f"{name}.wav"]}, 1, 400, (3,)).astype(float)
        assert babble.shape == (400,)
        assert np.sqrt(np.mean(babble**2)) == pytest.approx(1000, rel=0.01)


def test_broken_lists_are_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv: "):
        speakers_of(tmp_path / "train.tsv")
    (tmp_path / "train.tsv").write_text("/\na\tb\n")
    with pytest.raises(DataError, match=r"train\.tsv, line 2: "):
        speakers_of(tmp_path / "train.tsv")


def test_shares():
    parts = divide([str(k) for k in range(50)], seed=1)
    assert [len(parts[split]) for split in ("train", "valid", "test")] == [40, 5, 5]
    with pytest.raises(DataError, match=r"^2 "):
        divide(["a", "b"], seed=0)


def test_a_manifest_may_have_more_columns_and_must_have_audio(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("/\ns/a\tv.mp4\ta.wav\tmore\t1\t640\nt/b\tv.mp4\tb.wav\t1\t640\n")
    assert speakers_of(path) == {"s": [Path("/a.wav")], "t": [Path("/b.wav")]}
    path.write_text("/\ns/a\tv.mp4\t\t1\t640\n")
    with pytest.raises(DataError, match=r"train\.tsv, line 2: .* audio"):
        speakers_of(path)
