"""Confusion matrix and its scores."""

import numpy as np
import pytest

from av_ssl.classification.criterion import class_scores, confusion_matrix, confusion_table, score_line

EXAMPLE = np.array([[5, 1, 0], [0, 2, 0], [1, 0, 1]])


def test_known_values():
    scores = class_scores(EXAMPLE)
    assert scores == pytest.approx((0.8, 0.7777778, 0.7666667, 0.7933333), abs=1e-6)
    assert score_line(scores, 10) == (
        "10 clips: accuracy 80.00 %, unweighted average recall 77.78 %, macro-F1 76.67 %, weighted F1 79.33 %"
    )


def test_counts():
    truth, found = [0, 0, 1, 2, -1], [0, 1, 1, 0, 2]
    counts = confusion_matrix(truth, found, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])
    assert confusion_matrix([], [], 2).sum() == 0


def test_a_class_that_never_occurs():
    # Predicted, though: it lowers F1 and leaves the mean recall alone.
    scores = class_scores([[3, 1], [0, 0]])
    assert scores.recall == pytest.approx(0.75)
    assert scores.macro_f1 == pytest.approx((6 / 7 + 0) / 2)
    # Neither seen nor predicted: as if it were not there.
    assert class_scores([[3, 1, 0], [0, 4, 0], [0, 0, 0]]) == class_scores([[3, 1], [0, 4]])
    assert np.isnan(class_scores(np.zeros((2, 2)))).all()


@pytest.mark.parametrize(("truth", "found"), [([0, 3], [0, 0]), ([0, 0], [0, 3]), ([-2], [0]), ([0], [-1])])
def test_ids_out_of_range_are_refused(truth, found):
    with pytest.raises(ValueError, match="ids must be from 0 to 2"):
        confusion_matrix(truth, found, 3)
    with pytest.raises(ValueError, match="predictions for"):
        confusion_matrix([0, 1], [0], 3)


def test_table():
    lines = confusion_table(EXAMPLE, ["angry", "sad", "calm"]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["angry", "5", "1", "0", "83.3", "%"],
        ["sad", "0", "2", "0", "100.0", "%"],
        ["calm", "1", "0", "1", "50.0", "%"],
    ]
    assert len({len(line) for line in lines}) == 1
