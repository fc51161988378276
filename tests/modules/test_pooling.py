"""Pooling of padded sequences."""

import pytest
import torch

from av_ssl.classification.layers import POOLINGS, make_pooling


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 6, 8, generator=generator)
    padding = torch.arange(6) >= torch.tensor([6, 4, 1])[:, None]
    return x, padding


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_and_order_change_nothing(name):
    torch.manual_seed(0)
    pooling = make_pooling(name, 8).eval()
    x, padding = batch()
    pooled = pooling(x, padding)
    assert pooled.shape == (3, pooling.output_dim)
    noisy = torch.where(padding[..., None], torch.full_like(x, 99.0), x)
    torch.testing.assert_close(pooling(noisy, padding), pooled)
    alone = pooling(x[1:2, :4], padding[1:2, :4])
    torch.testing.assert_close(alone, pooled[1:2], atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(pooling(x[1:2, order], padding[1:2, :4]), alone, atol=1e-5, rtol=1e-5)


def test_mean_and_statistics():
    x, padding = batch()
    mean = make_pooling("mean", 8)(x, padding)
    torch.testing.assert_close(mean[1], x[1, :4].mean(0))
    statistics = make_pooling("stats", 8)(x, padding)
    torch.testing.assert_close(statistics[1, :8], mean[1])
    torch.testing.assert_close(statistics[1, 8:], (x[1, :4].var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(statistics[2, :8], x[2, 0])


@pytest.mark.parametrize("name", POOLINGS)
def test_one_vector_and_none_have_finite_gradients(name):
    torch.manual_seed(0)
    pooling = make_pooling(name, 8)
    x = torch.randn(2, 1, 8, requires_grad=True)
    pooling(x, torch.zeros(2, 1, dtype=torch.bool)).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in pooling.parameters())


@pytest.mark.parametrize("name", POOLINGS)
def test_nothing_but_padding_gives_numbers(name):
    torch.manual_seed(0)
    pooling = make_pooling(name, 8)
    x = torch.randn(2, 3, 8, requires_grad=True)
    pooled = pooling(x, torch.tensor([[False] * 3, [True] * 3]))
    assert pooled.isfinite().all()
    pooled.square().sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[1] == 0).all()
    assert all(p.grad.isfinite().all() for p in pooling.parameters())
    if name in ("sap", "asp"):
        assert (pooled[1, :8] == 0).all()


def test_unknown_names():
    with pytest.raises(ValueError, match="must be one of mean, stats"):
        make_pooling("median", 8)
    with pytest.raises(ValueError, match="6 channels cannot be divided"):
        make_pooling("self_attention", 6)
