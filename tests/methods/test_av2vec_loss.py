import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics

from av_ssl.methods.av2vec import AV2vecCriterion, AV2vecCriterionConfig, regression_loss
from av_ssl.targets.collapse import TargetMonitor, decorrelation_loss


class Model:
    def __init__(self, frames: int):
        torch.manual_seed(frames)
        self.output = {
            "prediction": torch.randn(frames, 16, requires_grad=True),
            "target": torch.randn(frames, 16),
            "features_pen": torch.tensor(0.5),
            "target_var": torch.tensor(0.4),
            "pred_var": torch.tensor(0.3),
            "ema_decay": 0.999,
            "encoded": torch.randn(frames, 16),
            **{f"target_{name}": torch.tensor(0.7) for name in TargetMonitor._fields},
        }

    def __call__(self, masks, target_list):
        assert target_list == ()
        return self.output


def sample(frames: int) -> dict:
    return {"net_input": {"masks": {"loss_index": torch.arange(frames)}}, "ntokens": 20, "nsentences": 2}


def test_square_is_the_stated_formula():
    p, y = torch.randn(5, 16), torch.randn(5, 16)
    expected = sum(((p[t] - y[t]) ** 2).sum() for t in range(5)) / 16**0.5
    assert regression_loss(p, y).item() == pytest.approx(expected.item(), rel=1e-6)
    assert regression_loss(p, y, scale=1.0).item() == pytest.approx(4 * expected.item(), rel=1e-6)


def test_smooth_l1():
    model = Model(5)
    p, y = model.output["prediction"], model.output["target"]
    expected = F.smooth_l1_loss(p, y, reduction="sum", beta=0.25) / 4
    assert regression_loss(p, y, beta=0.25).item() == pytest.approx(expected.item(), rel=1e-6)
    cfg = AV2vecCriterionConfig(loss_beta=0.25, loss_scale=0.5, loss_weights=None)
    loss, _, _ = AV2vecCriterion(cfg, task=None)(model, sample(5))
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-6)


def test_terms_are_means_over_frames():
    criterion = AV2vecCriterion(
        AV2vecCriterionConfig(regression_weight=2.0, decorrelation_weight=0.1, loss_weights=[10.0]), task=None
    )
    model = Model(7)
    loss, sample_size, log = criterion(model, sample(7))
    regression = regression_loss(model.output["prediction"], model.output["target"]).item() / 7
    assert sample_size == 7
    decorrelation = decorrelation_loss(model.output["encoded"]).item()
    assert loss.item() / 7 == pytest.approx(2 * regression + 10 * 0.5 + 0.1 * decorrelation, rel=1e-6)
    assert log["loss_regression"].item() / 7 == pytest.approx(regression, rel=1e-6)
    with metrics.aggregate(new_root=True) as logged:
        criterion.reduce_metrics([log, log])
    of_the_teacher = {
        "target_var": 0.4,
        "pred_var": 0.3,
        "ema_decay": 0.999,
        "target_rank": 0.7,
        "decorrelation": decorrelation,
    }
    values = logged.get_smoothed_values()
    assert {key: values[key] for key in of_the_teacher} == pytest.approx(of_the_teacher, rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_batch_without_frames_of_the_loss_adds_nothing(weight):
    criterion = AV2vecCriterion(AV2vecCriterionConfig(decorrelation_weight=weight), task=None)
    loss, sample_size, log = criterion(Model(0), sample(0))
    assert (loss.item(), sample_size, "decorrelation" in log) == (0, 0, False)


def test_split_batch_gives_the_gradient_of_the_whole():
    """fairseq sums the losses of micro-batches and workers and divides by the sum of the sample sizes."""
    criterion = AV2vecCriterion(AV2vecCriterionConfig(loss_weights=[0.0]), task=None)
    models = [Model(3), Model(11)]
    losses = [criterion(model, sample(frames)) for model, frames in zip(models, (3, 11), strict=True)]
    mean = sum(loss for loss, _, _ in losses) / sum(size for _, size, _ in losses)
    prediction = torch.cat([model.output["prediction"] for model in models])
    target = torch.cat([model.output["target"] for model in models])
    assert mean.item() == pytest.approx((prediction - target).square().sum(1).mean().item() / 4, rel=1e-6)
