"""EER and minDCF on lists small enough to check by hand."""

import numpy as np
import pytest

from av_ssl.classification.verification import (
    equal_error_rate,
    error_curve,
    minimum_detection_cost,
    trial_report,
)

PLAIN = ([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 1, 0, 1, 0, 0, 0])
TIE = ([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0])
SEPARABLE = ([0.6, 0.7, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1, 0, 0, 0, 0])
ALL_EQUAL = ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("trials", "eer", "cost"),
    [(PLAIN, 0.2, 0.6), (TIE, 0.4, 2 / 3), (SEPARABLE, 0.0, 0.0), (ALL_EQUAL, 0.5, 1.0)],
)
def test_known_values(trials, eer, cost):
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


def test_cost_is_normalised_by_the_better_constant_answer():
    # With useless scores the best is to reject all at a low prior, to accept all at a high one.
    assert minimum_detection_cost(*ALL_EQUAL, target_prior=0.9) == pytest.approx(1)
    assert minimum_detection_cost(*PLAIN, target_prior=0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([0.1, 0.2], [1, 1], "2 of 2 trials are of one speaker"),
        ([0.1, 0.2], [0, 0], "0 of 2"),
        ([0.1, float("nan")], [0, 1], "1 of 2 scores are not finite"),
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
