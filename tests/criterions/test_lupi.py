"""Distances, soft labels, and how terms are weighed."""

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from av_ssl.classification.lupi import (
    LupiCriterion,
    LupiCriterionConfig,
    embedding_distance,
    mean_over_segments,
    soft_label_loss,
)


def criterion(**options):
    return LupiCriterion(OmegaConf.merge(OmegaConf.structured(LupiCriterionConfig()), options), None)


class Outputs(torch.nn.Module):
    """A model that returns what it is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, target, **net_input):
        return self.output


def outputs(segments=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    empty = torch.tensor([[False] * segments, [False] + [True] * (segments - 1)])
    logits = draw(2, 4)
    return {
        "enc": draw(2, segments, 5), "teacher_enc": draw(2, segments, 5), "empty": empty, "agg": draw(2, 6),
        "teacher_agg": draw(2, 6), "logits": logits, "margin_logits": logits - 0.5,
        "teacher_logits": draw(2, 4),
    }  # fmt: skip


def run(output, target=(1, 3), **options):
    sample = {"net_input": {}, "target": torch.tensor(target), "ntokens": 9, "nsentences": 2}
    return criterion(**options)(Outputs(output).eval(), sample)


def test_terms_and_weights():
    output = outputs()
    loss, size, log = run(output, alpha=2.0, beta=3.0, gamma=0.5)
    first = F.mse_loss(output["enc"][0], output["teacher_enc"][0])
    second = F.mse_loss(output["enc"][1, 0], output["teacher_enc"][1, 0])  # its other segments are none
    aggregated = (output["agg"] - output["teacher_agg"]).square().mean(-1).sum()
    labels = F.cross_entropy(output["margin_logits"], torch.tensor([1, 3]), reduction="sum")
    torch.testing.assert_close(loss, 2 * (first + second) + 3 * aggregated + 0.5 * labels)
    assert size == 2
    torch.testing.assert_close(log["loss_enc"], first + second)
    torch.testing.assert_close(log["loss_distill"], 2 * (first + second) + 3 * aggregated)
    assert log["_confusion"].sum() == 2


def test_clips_of_unknown_class_learn_from_the_teacher_alone():
    output = outputs()
    loss, _, log = run(output, target=(-1, 3))
    known, _, _ = run(output, target=(1, 3))
    share = F.cross_entropy(output["margin_logits"][:1], torch.tensor([1]))
    torch.testing.assert_close(known - loss, share)
    assert log["n_known"] == 1
    assert log["_confusion"].sum() == 1


def test_cosine_distances():
    u, v = torch.randn(7, 5), torch.randn(7, 5)
    cosines = F.cosine_similarity(u, v)
    torch.testing.assert_close(embedding_distance(u, v, "nmse"), 2 - 2 * cosines)
    torch.testing.assert_close(
        embedding_distance(u, v, "nmse"), (F.normalize(u) - F.normalize(v)).square().sum(-1)
    )
    torch.testing.assert_close(embedding_distance(u, v, "margin"), (0.9 - cosines).clamp(min=0))
    assert embedding_distance(u, 3 * u, "margin").max() == 0
    with pytest.raises(ValueError, match=r"criterion\.distance is 'far'"):
        embedding_distance(u, v, "far")


def test_distances_of_half_precision_are_computed_in_float():
    u = torch.full((1, 512), 100.0, dtype=torch.bfloat16)
    assert embedding_distance(u, -u, "sse").item() == 512 * 200**2


def test_segments_that_are_not_there_do_not_count():
    values = torch.tensor([[1.0, 3.0], [5.0, 99.0], [99.0, 99.0]])
    empty = torch.tensor([[False, False], [False, True], [True, True]])
    assert mean_over_segments(values, empty).tolist() == [2.0, 5.0, 0.0]


def test_soft_labels():
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    soft = (teacher / 5).softmax(-1)
    expected = F.cross_entropy(student, soft, reduction="none")
    torch.testing.assert_close(soft_label_loss(student, teacher, 5.0, "paper"), expected)
    torch.testing.assert_close(soft_label_loss(student, teacher, 5.0, "code"), 25 * expected)
    assert soft_label_loss(teacher, teacher, 5.0, "hinton").abs().max() < 1e-5
    with pytest.raises(ValueError, match="the same classes"):
        soft_label_loss(student, teacher[:, :3], 5.0, "paper")
    with pytest.raises(ValueError, match=r"criterion\.soft_labels is 'own'"):
        soft_label_loss(student, teacher, 5.0, "own")


def test_soft_labels_beside_hard_ones():
    output = outputs()
    options = {"alpha": 0.0, "beta": 0.0, "soft_labels": "paper", "imitation": 0.25, "temperature": 2.0}
    loss, _, log = run(output, **options)
    soft = soft_label_loss(output["logits"], output["teacher_logits"], 2.0, "paper").sum()
    hard = F.cross_entropy(output["margin_logits"], torch.tensor([1, 3]), reduction="sum")
    torch.testing.assert_close(loss, 0.75 * hard + 0.25 * soft)
    torch.testing.assert_close(log["loss_soft"], soft)
    without = {key: value for key, value in output.items() if not key.startswith("teacher")}
    with pytest.raises(ValueError, match=r"set model\.teacher_path"):
        run(without, **options)


@pytest.mark.parametrize("options", [{"imitation": 1.5}, {"temperature": 0.0}])
def test_shares_and_temperatures_out_of_range(options):
    with pytest.raises(ValueError, match="is a share from 0 to 1"):
        criterion(**options)
