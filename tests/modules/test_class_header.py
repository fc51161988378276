"""Headers and their margins."""

import math

import pytest
import torch
import torch.nn.functional as F

from av_ssl.classification.layers import ClassHeader, with_margin


def test_softmax_is_a_linear_layer_behind_a_hidden_one():
    torch.manual_seed(0)
    header = ClassHeader(8, 3, hidden=5)
    output = header(torch.randn(4, 8), torch.tensor([0, 1, 2, -1]))
    assert output.hidden.shape == (4, 5)
    assert (output.hidden >= 0).all()
    assert output.logits.shape == (4, 3)
    assert output.margin_logits is output.logits


@pytest.mark.parametrize("kind", ["am", "aam"])
def test_the_margin_lowers_the_true_class_alone(kind):
    torch.manual_seed(0)
    header = ClassHeader(8, 3, kind=kind, margin=0.2, scale=30)
    x, target = torch.randn(4, 8), torch.tensor([0, 1, 2, -1])
    output = header(x, target)
    cosines = F.normalize(x, dim=-1) @ F.normalize(header.output.weight, dim=-1).T
    torch.testing.assert_close(output.logits, 30 * cosines)
    lowered = output.logits - output.margin_logits
    true = F.one_hot(target[:3], 3).bool()
    assert (lowered[:3][true] > 0).all()
    assert (lowered[:3][~true] == 0).all()
    assert (lowered[3] == 0).all()
    if kind == "aam":
        angles = torch.acos(cosines[:3][true])
        torch.testing.assert_close(
            output.margin_logits[:3][true], 30 * torch.cos(angles + 0.2), rtol=1e-3, atol=1e-3
        )
    else:
        torch.testing.assert_close(lowered[:3][true], torch.full((3,), 6.0))


def test_the_angular_margin_is_monotone():
    cosines = torch.linspace(-1, 1, 2001)
    lowered = with_margin(cosines, 0.4, angular=True)
    assert (lowered.diff() > 0).all()
    assert lowered[0].item() == pytest.approx(-1 - 0.4 * math.sin(0.4), abs=1e-5)


def test_the_margin_rises():
    header = ClassHeader(8, 3, kind="am", margin=0.4, margin_updates=10)
    margins = []
    for updates in (0, 5, 10, 20):
        header.set_num_updates(updates)
        margins.append(header.current_margin)
    assert margins == pytest.approx([0, 0.2, 0.4, 0.4])


def test_what_is_refused():
    with pytest.raises(ValueError, match="must be one of softmax, am, aam"):
        ClassHeader(8, 3, kind="cosine")
    with pytest.raises(ValueError, match="0 classes"):
        ClassHeader(8, 0)
