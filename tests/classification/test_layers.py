"""Pooling of padded sequences, and classification heads with their margin."""

import math

import pytest
import torch
import torch.nn.functional as F

from av_ssl.classification.layers import POOLINGS, ClassHead, with_angular_margin


def padded(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 6, 8, generator=generator)
    return x, torch.arange(6) >= torch.tensor([6, 4, 1])[:, None]


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_and_order_change_nothing(name):
    torch.manual_seed(0)
    pooling = POOLINGS[name](8)
    x, padding = padded()
    pooled = pooling(x, padding)
    assert pooled.shape == (3, pooling.output_dim)
    noisy = torch.where(padding[..., None], torch.full_like(x, 99.0), x)
    torch.testing.assert_close(pooling(noisy, padding), pooled)
    alone = pooling(x[1:2, :4], padding[1:2, :4])
    torch.testing.assert_close(alone, pooled[1:2], atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(pooling(x[1:2, order], padding[1:2, :4]), alone, atol=1e-5, rtol=1e-5)


def test_mean_and_attentive_statistics():
    x, padding = padded()
    torch.testing.assert_close(POOLINGS["mean"](8)(x, padding)[1], x[1, :4].mean(0))
    pooling = POOLINGS["asp"](8)
    torch.nn.init.zeros_(pooling.score.weight)  # equal weights
    found = pooling(x, padding)
    torch.testing.assert_close(found[1, :8], x[1, :4].mean(0))
    torch.testing.assert_close(found[1, 8:], (x[1, :4].var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(found[2], torch.cat([x[2, 0], torch.full((8,), 1e-5**0.5)]))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("padding", [[[False], [False]], [[False] * 3, [True] * 3]])
def test_single_vectors_and_padding_alone_have_finite_gradients(name, padding):
    torch.manual_seed(0)
    pooling = POOLINGS[name](8)
    x = torch.randn(2, len(padding[0]), 8, requires_grad=True)
    pooled = pooling(x, torch.tensor(padding))
    pooled.square().sum().backward()
    assert pooled.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in pooling.parameters())
    if padding[1][0]:
        assert (x.grad[1] == 0).all()
        assert (pooled[1, :8] == 0).all()


def test_softmax_is_a_linear_layer_after_a_hidden_one():
    torch.manual_seed(0)
    output = ClassHead(8, 3, hidden=5)(torch.randn(4, 8), torch.tensor([0, 1, 2, -1]))
    assert output.hidden.shape == (4, 5)
    assert (output.hidden >= 0).all()
    assert output.logits.shape == (4, 3)
    assert output.margin_logits is output.logits


def test_the_margin_lowers_the_true_class_only():
    torch.manual_seed(0)
    head = ClassHead(8, 3, kind="aam", margin=0.2, scale=30)
    x, target = torch.randn(4, 8), torch.tensor([0, 1, 2, -1])
    output = head(x, target)
    cosines = F.normalize(x, dim=-1) @ F.normalize(head.output.weight, dim=-1).T
    torch.testing.assert_close(output.logits, 30 * cosines)
    lowered = output.logits - output.margin_logits
    true = F.one_hot(target[:3], 3).bool()
    assert (lowered[:3][~true] == 0).all()
    assert (lowered[3] == 0).all()
    expected = 30 * torch.cos(torch.acos(cosines[:3][true]) + 0.2)
    torch.testing.assert_close(output.margin_logits[:3][true], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(head(x).margin_logits, output.logits)


def test_the_angular_margin_is_monotone():
    lowered = with_angular_margin(torch.linspace(-1, 1, 2001), 0.4)
    assert (lowered.diff() > 0).all()
    assert lowered[0].item() == pytest.approx(-1 - 0.4 * math.sin(0.4), abs=1e-5)


def test_the_margin_rises():
    head = ClassHead(8, 3, kind="aam", margin=0.4, margin_updates=10)
    margins = []
    for updates in (0, 5, 10, 20):
        head.set_num_updates(updates)
        margins.append(head.current_margin)
    assert margins == pytest.approx([0, 0.2, 0.4, 0.4])


def test_a_head_without_classes_is_refused():
    with pytest.raises(ValueError, match=r"model\.num_classes=0"):
        ClassHead(8, 0)
