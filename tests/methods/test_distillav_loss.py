"""DistillAV's losses against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics

from av_ssl.methods.distillav import DistillAVCriterion, DistillAVCriterionConfig
from av_ssl.methods.teacher_heads import Prediction, soft_cross_entropy, teacher_losses
from av_ssl.targets.teacher_targets import Target


def output(frames: int, seed: int = 0, channels: tuple[int, ...] = (16, 9)) -> dict:
    torch.manual_seed(seed)
    predictions = [Prediction(torch.randn(2 * frames, d), torch.randn(2 * frames, 7)) for d in channels]
    targets = [Target(torch.randn(2 * frames, d), torch.randn(2 * frames, 7).softmax(1)) for d in channels]
    return {"features_pen": torch.tensor(0.5), "predictions": predictions, "targets": targets,
            "task_weights": None}  # fmt: skip


def sample(frames: int) -> dict:
    index = [torch.arange(frames - 1), torch.arange(frames)]
    return {"net_input": {"teachers": {"index": index}}, "ntokens": frames, "nsentences": 2}


def run(result: dict, frames: int, **config):
    criterion = DistillAVCriterion(DistillAVCriterionConfig(**config), task=None)
    return criterion(lambda **net_input: result, sample(frames))


def test_soft_cross_entropy_is_that_of_log_probabilities():
    logits, q = torch.randn(5, 7), torch.randn(5, 7).softmax(1)
    expected = -(q * logits.log_softmax(1)).sum()
    assert soft_cross_entropy(logits, q).item() == pytest.approx(expected.item(), rel=1e-6)


def test_regression_is_summed_over_channels_and_divided_by_their_root():
    result = output(4)
    losses = teacher_losses(result)
    for loss, prediction, target in zip(losses, result["predictions"], result["targets"], strict=True):
        channels = target.vectors.shape[1]
        expected = (prediction.vectors - target.vectors).square().sum() / math.sqrt(channels)
        assert loss.regression.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_is_the_plain_sum_with_its_weights():
    result = output(6)
    losses = teacher_losses(result)
    loss, frames, _ = run(result, 6, regression_weight=0.5, cluster_weight=2.0, loss_weights=[3.0])
    expected = sum(0.5 * each.regression + 2 * each.clusters for each in losses) + 3.0 * 0.5 * 6
    assert frames == 6  # of the teacher with most of them
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_what_is_logged():
    first, second = output(6, 0), output(3, 1)
    first["task_weights"] = torch.tensor([1.0, 0.5, -0.1, 0.2])
    with metrics.aggregate(new_root=True) as log:
        DistillAVCriterion.reduce_metrics([run(first, 6)[2], run(second, 3)[2]])
        values = log.get_smoothed_values()
    p = torch.cat([each["predictions"][1].vectors for each in (first, second)])
    y = torch.cat([each["targets"][1].vectors for each in (first, second)])
    assert values["teacher1_regression"] == pytest.approx(F.mse_loss(p, y).item(), rel=1e-3)
    q = torch.cat([each["targets"][0].posteriors for each in (first, second)])
    z = torch.cat([each["predictions"][0].logits for each in (first, second)])
    assert values["teacher0_accuracy"] == pytest.approx(
        (q.argmax(1) == z.argmax(1)).float().mean().item(), abs=1e-3
    )
    assert values["teacher0_entropy"] == pytest.approx(-(q * q.log()).sum(1).mean().item(), abs=1e-3)
    expected = -(q * z.log_softmax(1)).sum(1).mean().item()
    assert values["teacher0_clusters"] == pytest.approx(expected, abs=1e-3)
    assert values["features_pen"] == 0.5
    assert values["task_weights2"] == pytest.approx(-0.1, abs=1e-3)  # of the micro-batch that has weights
    assert "teacher2_regression" not in values
