"""Trial lists, scores of embedding pairs and their error rates, on examples small enough to check by hand."""

import itertools
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from av_ssl.classification.verification import (
    EmbeddingCache,
    adaptive_s_norm,
    cohort_embeddings,
    cosine_scores,
    draw_trials,
    draw_within,
    equal_error_rate,
    error_curve,
    file_state,
    key_parts,
    minimum_detection_cost,
    read_trials,
    trial_report,
    utterance_key,
)
from av_ssl.errors import DataError
from av_ssl.manifest import Clip

# -- trial lists ---------------------------------------------------------------------------------------------

LINES = """1 id10270/5r0dWxy17C8/00001.wav id10270/5sJomL_D0_g/00001.wav
0 id10270/5r0dWxy17C8/00001.wav id10300/ize_eiCFEg0/00003.wav

1 id10300/ize_eiCFEg0/00003.wav id10300/ize_eiCFEg0/00007.wav
"""


def written(tmp_path, text, name="trials.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def clips(*names):
    return [Clip(name, None, Path(f"{name}.wav"), 0, 640, line) for line, name in enumerate(names, start=2)]


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


def test_trials_among_known_utterances(tmp_path):
    trials = read_trials(written(tmp_path, "1 c b\n0 a c\n0 b a\n1 d a\n"))
    kept = trials.among({"a", "b", "c"})
    assert kept.utterances == ["a", "b", "c"]
    pairs = [(kept.utterances[a], kept.utterances[b]) for a, b in zip(kept.first, kept.second, strict=True)]
    assert pairs == [("c", "b"), ("a", "c"), ("b", "a")]
    assert kept.targets.tolist() == [True, False, False]
    assert len(trials.among({"a"})) == 0


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
def test_keys_of_utterances(name, key):
    assert utterance_key(name) == key


def test_keys_are_as_long_as_clips_need_to_differ(tmp_path):
    manifest = Path("test.tsv")
    assert key_parts(manifest, clips("id1/x/1", "id1/x/2", "a")) == 3
    assert key_parts(manifest, clips("a/id1/x/1", "b/id1/x/1")) == 4
    trials = read_trials(written(tmp_path, "1 a/id1/x/1.wav b/id1/x/1.wav\n"), parts=4)
    assert trials.utterances == ["a/id1/x/1", "b/id1/x/1"]


@pytest.mark.parametrize("other", ["a/id1/x/1", "a/id1/x/1.mp4"])
def test_two_clips_of_one_name_are_refused(other):
    with pytest.raises(DataError, match=r"test\.tsv: .* on line 2 .* on line 4 "):
        key_parts(Path("test.tsv"), clips("a/id1/x/1", "b", other))


@pytest.mark.parametrize("line", ["2 a b", "1 a", "1 a b c", "a b 1"])
def test_a_malformed_line_is_named(tmp_path, line):
    with pytest.raises(DataError, match=r"trials\.txt, line 5: "):
        read_trials(written(tmp_path, f"{LINES}{line}\n"))


def test_missing_empty_and_incomplete_lists(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: "):
        read_trials(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"trials\.txt: "):
        read_trials(written(tmp_path, "\n"))
    with pytest.raises(DataError, match=r"veri_test2\.txt: has 2 target and 1 non-target trials, .* 18802"):
        read_trials(written(tmp_path, LINES, "veri_test2.txt"))


def test_pairs_of_one_speaker_are_drawn_without_listing_them():
    speakers = [["a", "b", "c"], ["d"], ["e", "f"], [f"g{number}" for number in range(100)]]
    listed = [pair for names in speakers for pair in itertools.combinations(names, 2)]
    drawn = draw_within(speakers, 50, random.Random(3))
    assert drawn == random.Random(3).sample(listed, 50)
    assert sorted(draw_within(speakers, 10**6, random.Random(0))) == sorted(listed)
    assert draw_within([["a"]], 5, random.Random(0)) == draw_within([], 5, random.Random(0)) == []
    many = [[str(clip) for clip in range(200)]] * 6000  # 10^8 pairs
    assert len(draw_within(many, 100, random.Random(0))) == 100


def test_trials_are_pairs_of_one_speaker_and_as_many_of_two():
    speakers = {name: [f"{name}{clip}" for clip in range(3)] for name in "abc"}
    trials = draw_trials(speakers, 10, seed=1)
    assert len({(first, second) for _, first, second in trials}) == 10
    assert all((first[0] == second[0]) == same for same, first, second in trials)
    assert sum(same for same, _, _ in trials) == 5
    assert draw_trials(speakers, 10, seed=1) == trials != draw_trials(speakers, 10, seed=2)
    everything = draw_trials(speakers, 1000, seed=1)
    assert (len(everything), sum(same for same, _, _ in everything)) == (18, 9)


# -- embeddings on disk --------------------------------------------------------------------------------------


def test_the_cache_depends_on_settings_and_clips(tmp_path):
    computed = []

    def compute(wanted):
        computed.append(1)
        return {clip.id: np.ones(3, np.float32) for clip in wanted}

    listed = clips("a", "b")
    cache = EmbeddingCache(tmp_path, {"layer": "encoder"}, compute)
    for _ in range(2):
        np.testing.assert_array_equal(cache("test", listed)["a"], np.ones(3))
    assert len(computed) == 1
    cache("test", [listed[0], replace(listed[1], samples=641)])
    EmbeddingCache(tmp_path, {"layer": "header"}, compute)("test", listed)
    assert len(computed) == 3
    for path in tmp_path.iterdir():
        path.write_bytes(b"PK\x03\x04 cut off")
    cache("test", listed)
    assert len(computed) == 4


def test_the_cache_depends_on_the_files_of_clips(tmp_path):
    path = tmp_path / "a.wav"
    assert file_state(None) == "-"
    assert file_state(path) == f"{path} missing"
    path.write_bytes(b"12")
    first = file_state(path)
    os.utime(path, ns=(0, 5))
    assert file_state(path) == f"{path} 2 5" != first


def test_a_cohort_has_the_mean_of_each_speaker(tmp_path):
    lines = [str(tmp_path), *(f"{clip}\tv\ta\t5\t3200" for clip in "abc")]
    manifest = written(tmp_path, "\n".join(lines), "list.tsv")
    found = {"a": np.array([1, 3]), "b": np.array([5, 7]), "c": np.array([2, 5])}
    assert cohort_embeddings(manifest, lambda *_: found).tolist() == [[1, 3], [5, 7], [2, 5]]
    written(tmp_path, "y\nx\ny\n", "list.spk")
    assert cohort_embeddings(manifest, lambda *_: found).tolist() == [[5, 7], [1.5, 4]]


# -- scores --------------------------------------------------------------------------------------------------


def test_cosine():
    embeddings = np.array([[2, 0], [0, 3], [1, 1], [0, 0]], np.float32)
    scores = cosine_scores(embeddings, np.array([0, 0, 2, 3]), np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(scores, [1, 0, 0.5**0.5, 0], atol=1e-6)


def test_s_norm_by_hand():
    rng = np.random.default_rng(0)
    embeddings, cohort = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype("f4")
    first, second = np.array([0, 1, 1]), np.array([3, 4, 3])
    scores = cosine_scores(embeddings, first, second)
    normed = adaptive_s_norm(scores, embeddings, first, second, cohort, top=6)

    def against_cohort(row):
        cosines = cohort @ embeddings[row] / np.linalg.norm(cohort, axis=1) / np.linalg.norm(embeddings[row])
        nearest = np.sort(cosines)[-6:]
        return nearest.mean(), nearest.std()

    for k, score in enumerate(scores):
        sides = [against_cohort(row) for row in (first[k], second[k])]
        expected = sum((score - mean) / deviation for mean, deviation in sides) / 2
        assert normed[k] == pytest.approx(expected, abs=1e-4)


def test_small_cohorts():
    embeddings = np.eye(3, dtype=np.float32)
    sides = np.array([0]), np.array([1])
    assert np.isfinite(adaptive_s_norm(np.array([0.5]), embeddings, *sides, embeddings, top=300)).all()
    with pytest.raises(ValueError, match="has 1 embeddings"):
        adaptive_s_norm(np.array([0.5]), embeddings, *sides, embeddings[:1])


# -- error rates ---------------------------------------------------------------------------------------------

PLAIN = ([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 1, 0, 1, 0, 0, 0])
TIE = ([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0])
SEPARABLE = ([0.6, 0.7, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1, 0, 0, 0, 0])
ALL_EQUAL = ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("trials", "eer", "cost"),
    [(PLAIN, 0.2, 0.6), (TIE, 0.4, 2 / 3), (SEPARABLE, 0.0, 0.0), (ALL_EQUAL, 0.5, 1.0)],
)
def test_known_rates(trials, eer, cost):
    assert equal_error_rate(*trials) == pytest.approx(eer, abs=1e-9)
    assert minimum_detection_cost(*trials, target_prior=0.01) == pytest.approx(cost, abs=1e-9)
    assert minimum_detection_cost(*trials, target_prior=0.05) == pytest.approx(cost, abs=1e-9)


def test_the_order_of_a_list_and_monotone_transforms_change_nothing():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=400), 1)  # with ties
    targets = rng.random(400) < 0.3
    scores[targets] += 1
    eer, cost = equal_error_rate(scores, targets), minimum_detection_cost(scores, targets)
    assert 0.1 < eer < 0.5
    order = rng.permutation(400)
    for changed, labels in ((scores[order], targets[order]), (np.exp(3 * scores) - 7, targets)):
        assert equal_error_rate(changed, labels) == pytest.approx(eer, abs=1e-12)
        assert minimum_detection_cost(changed, labels) == pytest.approx(cost, abs=1e-12)


def test_the_curve_begins_by_rejecting_all_and_ends_by_accepting_all():
    misses, false_alarms = error_curve(*TIE)
    np.testing.assert_allclose(misses, [1, 2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(false_alarms, [0, 0, 0.5, 0.5, 1])


def test_cost_is_normalised_by_the_better_constant_decision():
    # With useless scores the best is to reject all at a low prior, to accept all at a high one.
    assert minimum_detection_cost(*ALL_EQUAL, target_prior=0.9) == pytest.approx(1)
    assert minimum_detection_cost(*PLAIN, target_prior=0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([0.1, 0.2], [1, 1], "2 of 2 trials"),
        ([0.1, 0.2], [0, 0], "0 of 2 trials"),
        ([0.1, float("nan")], [0, 1], "1 of 2 scores"),
        ([0.1], [0, 1], "scores for"),
    ],
)
def test_lists_without_an_answer_are_refused(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, targets)
    with pytest.raises(ValueError, match="between 0 and 1"):
        minimum_detection_cost(*TIE, target_prior=1.0)


def test_report():
    assert trial_report(*TIE) == (
        "5 trials (3 target, 2 non-target): EER 40.000 %, minDCF(0.01) 0.6667, minDCF(0.05) 0.6667"
    )
