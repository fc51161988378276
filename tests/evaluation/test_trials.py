"""Trial lists."""

from pathlib import Path

import numpy as np
import pytest

from av_ssl.classification.verification import key_parts, read_trials, utterance_key
from av_ssl.errors import DataError
from av_ssl.layout import Clip

LINES = """1 id10270/5r0dWxy17C8/00001.wav id10270/5sJomL_D0_g/00001.wav
0 id10270/5r0dWxy17C8/00001.wav id10300/ize_eiCFEg0/00003.wav

1 id10300/ize_eiCFEg0/00003.wav id10300/ize_eiCFEg0/00007.wav
"""


def written(tmp_path, text, name="trials.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_list_in_voxcelebs_format(tmp_path):
    trials = read_trials(written(tmp_path, LINES))
    assert len(trials) == 3
    assert trials.utterances == [
        "id10270/5r0dWxy17C8/00001",
        "id10270/5sJomL_D0_g/00001",
        "id10300/ize_eiCFEg0/00003",
        "id10300/ize_eiCFEg0/00007",
    ]
    np.testing.assert_array_equal(trials.first, [0, 0, 2])
    np.testing.assert_array_equal(trials.second, [1, 2, 3])
    np.testing.assert_array_equal(trials.targets, [True, False, True])
    known = dict.fromkeys(trials.utterances[1:], 0)
    np.testing.assert_array_equal(trials.among(known).first, [2])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("id10270/x/00001.wav", "id10270/x/00001"),
        ("dev/id00012/x/00001", "id00012/x/00001"),
        ("/data/wav/id10270/x/00001.m4a", "id10270/x/00001"),
        (r"id10270\x\00001.wav", "id10270/x/00001"),
        ("t000/00003", "t000/00003"),
        ("1001_DFA_ANG_XX.flv", "1001_DFA_ANG_XX"),
        ("id10270/a.b/00001.v2", "id10270/a.b/00001.v2"),
    ],
)
def test_trials_and_manifests_name_an_utterance_alike(name, key):
    assert utterance_key(name) == key


def clips(*names):
    return [Clip(name, None, Path(f"{name}.wav"), 0, 640, line) for line, name in enumerate(names, start=2)]


def test_names_are_as_long_as_clips_need_to_differ(tmp_path):
    manifest = Path("test.tsv")
    assert key_parts(manifest, clips("id1/x/1", "id1/x/2", "a")) == 3
    assert key_parts(manifest, clips("a/id1/x/1", "b/id1/x/1")) == 4
    trials = read_trials(written(tmp_path, "1 a/id1/x/1.wav b/id1/x/1.wav\n"), parts=4)
    assert trials.utterances == ["a/id1/x/1", "b/id1/x/1"]


@pytest.mark.parametrize("other", ["a/id1/x/1", "a/id1/x/1.mp4"])
def test_two_clips_of_one_name_are_refused(other):
    with pytest.raises(
        DataError,
        match=r"test\.tsv: 'a/id1/x/1' on line 2 \(.*wav\) and .* line 4 .* would both be",
    ):
        key_parts(Path("test.tsv"), clips("a/id1/x/1", "b", other))


@pytest.mark.parametrize("line", ["2 a b", "1 a", "1 a b c", "a b 1"])
def test_a_malformed_line_is_named(tmp_path, line):
    with pytest.raises(DataError, match=r"trials\.txt, line 5: .* is no trial"):
        read_trials(written(tmp_path, f"{LINES}{line}\n"))


def test_missing_empty_and_incomplete_lists(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_trials(tmp_path / "none.txt")
    with pytest.raises(DataError, match="holds no trial"):
        read_trials(written(tmp_path, "\n"))
    with pytest.raises(DataError, match=r"veri_test2\.txt: has 2 target and 1 non-target trials, .* 18802"):
        read_trials(written(tmp_path, LINES, "veri_test2.txt"))
