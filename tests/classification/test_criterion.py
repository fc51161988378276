"""Confusion matrix and its scores, the loss and what is logged."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics

from av_ssl.classification.criterion import (
    CONFUSION,
    MOST_CLASSES,
    AVClassificationCriterion,
    AVClassificationCriterionConfig,
    class_log,
    class_scores,
    confusion_matrix,
    confusion_table,
    score_line,
)
from av_ssl.methods.criterion import log_means

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


def test_loss_and_scores_of_two_micro_batches():
    """The ten clips of EXAMPLE and one of unknown class, which adds no loss."""
    true, found = (np.repeat(ids, EXAMPLE[EXAMPLE > 0]) for ids in np.nonzero(EXAMPLE))
    target = torch.tensor([*true, -1])
    logits = 2.0 * F.one_hot(torch.tensor([*found, 1]), 3)
    margin_logits = logits - 0.5 * F.one_hot(target.clamp(min=0), 3)
    criterion = AVClassificationCriterion(AVClassificationCriterionConfig(label_smoothing=0.1), None)
    model = torch.nn.Module()
    logs = []
    for rows in (slice(0, 7), slice(7, 11)):
        output = {"logits": logits[rows], "margin_logits": margin_logits[rows]}
        model.forward = lambda target, output=output: output
        sample = {"net_input": {}, "target": target[rows], "ntokens": 9, "nsentences": 2}
        _, size, log = criterion(model.eval(), sample)
        assert size == len(target[rows])
        logs.append(log)
    with metrics.aggregate(new_root=True) as meters:
        criterion.reduce_metrics(logs)
    log_probs = margin_logits[:10].log_softmax(1)
    nats = -0.9 * log_probs.gather(1, target[:10, None]).sum() - 0.1 * log_probs.mean(1).sum()
    values = meters.get_smoothed_values()
    assert values["loss"] == pytest.approx(nats.item() / 11, abs=1e-3)
    assert (values["accuracy"], values["uar"], values["macro_f1"]) == (80.0, 77.78, 76.67)


def test_what_is_not_logged():
    target = torch.tensor([0])
    assert CONFUSION not in class_log(torch.zeros(1, 3), target, training=True)
    assert CONFUSION in class_log(torch.zeros(1, MOST_CLASSES), target, training=False)
    assert CONFUSION not in class_log(torch.zeros(1, MOST_CLASSES + 1), target, training=False)
    with metrics.aggregate(
        new_root=True
    ) as meters:  # a term that one micro-batch lacks, and one that both lack
        log_means([{"sample_size": 3, "loss": 8.0}, {"sample_size": 1}], ["loss", "loss_enc"])
    assert meters.get_smoothed_values() == {"loss": 2.0}
