"""The node against the procedure it stands for: one backward pass for each task, weights by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from av_ssl.modules.aligned_mtl import GradientBalancer, aligned_weights

TASKS, CHANNELS = 4, 6


class Net(nn.Module):
    def __init__(self, balancer: GradientBalancer | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CHANNELS))
        self.heads = nn.ModuleList(nn.Linear(CHANNELS, 3) for _ in range(TASKS))
        self.balancer = balancer

    def losses(self, x: torch.Tensor) -> list[torch.Tensor]:
        shared = [x] * TASKS if self.balancer is None else self.balancer.fan_out(x, TASKS)
        return [
            (head(y).square().sum(-1) * 10**k).sum()
            for k, (head, y) in enumerate(zip(self.heads, shared, strict=True))
        ]


def batch(clips: int = 3, frames: int = 7) -> torch.Tensor:
    return torch.randn(clips, frames, 5, generator=torch.Generator().manual_seed(1))


def reference_weights(vectors: np.ndarray) -> np.ndarray:
    """The published formula in numpy."""
    values, basis = np.linalg.eigh(vectors @ vectors.T)
    kept = values > values.max() * len(values) * np.finfo(np.float32).eps
    values, basis = values[kept], basis[:, kept]
    return (np.sqrt(values.min()) * basis @ np.diag(values**-0.5) @ basis.T).sum(axis=1)


def by_hand(net: Net, gram: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Gradients of a backward pass for each task, at a copy of the encoder's output that ends it."""
    x = net.encoder(batch())
    cut = x.detach().requires_grad_()
    gradients = []
    for loss in net.losses(cut):
        cut.grad = None
        loss.backward()  # heads get the plain gradients
        gradients.append(cut.grad.clone())
    stacked = torch.stack(gradients)
    vectors = stacked.sum(1) if gram == "batch_sum" else stacked
    weights = reference_weights(vectors.flatten(1).double().numpy())
    penalty = x.square().mean()
    (penalty + (x * torch.einsum("k,kbtc->btc", torch.tensor(weights).float(), stacked)).sum()).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters()}, weights


@pytest.mark.parametrize("gram", ["batch_sum", "full"])
def test_one_backward_pass_equals_one_for_each_task(gram):
    expected, weights = by_hand(Net(None), gram)
    net = Net(GradientBalancer(gram))
    x = net.encoder(batch())
    (x.square().mean() + torch.stack(net.losses(x)).sum()).backward()
    np.testing.assert_allclose(net.balancer.weights, weights, rtol=1e-4)
    for name, parameter in net.named_parameters():
        scale = expected[name].abs().max()
        assert (parameter.grad - expected[name]).abs().max() / scale < 1e-5, name


def test_result_is_as_long_as_the_weakest_direction():
    vectors = torch.randn(TASKS, 50, generator=torch.Generator().manual_seed(2)).double()
    gram = vectors @ vectors.T
    combined = aligned_weights(gram) @ vectors
    assert combined.norm().item() == pytest.approx((TASKS * torch.linalg.eigvalsh(gram)[0]).sqrt().item())


def test_orthogonal_tasks_become_as_long_as_the_shortest():
    assert aligned_weights(torch.diag(torch.tensor([100.0, 4.0, 1.0]))).tolist() == pytest.approx(
        [0.1, 0.5, 1]
    )


def test_a_task_without_a_gradient_does_no_harm():
    balancer = GradientBalancer()
    a, b = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    combined = balancer.combine([a, None, b])
    assert balancer.weights.tolist() == pytest.approx([1, 0, 1])
    assert torch.equal(combined, a + b)
    assert balancer.combine([None, None]) is None


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_zero_and_overflown_gradients_pass_as_a_plain_sum(bad):
    balancer = GradientBalancer()
    gradients = [torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)]
    gradients[1][0, 0, 0] = bad
    combined = balancer.combine(gradients)
    assert balancer.weights.tolist() == [1, 1]
    assert torch.equal(torch.isfinite(combined), torch.isfinite(gradients[1]))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 2.0**15), (torch.bfloat16, 1.0)])
def test_half_precision_with_loss_scaling(dtype, scale):
    exact = GradientBalancer()
    gradients = [torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(k)) * 1e-4 for k in range(3)]
    expected = exact.combine(gradients)
    half = GradientBalancer()
    combined = half.combine([(gradient * scale).to(dtype) for gradient in gradients])
    assert combined.dtype == dtype
    np.testing.assert_allclose(half.weights, exact.weights, rtol=0.03)
    np.testing.assert_allclose(combined.float() / scale, expected, atol=0.02 * expected.abs().max())


def test_weights_belong_to_the_micro_batch():
    """Accumulation adds up gradients that were balanced one micro-batch at a time."""
    net = Net(GradientBalancer())
    parts = [batch(2), batch(2) * 3]
    for part in parts:
        torch.stack(net.losses(net.encoder(part))).sum().backward()
    accumulated = [p.grad.clone() for p in net.parameters()]
    separate = []
    for part in parts:
        net.zero_grad()
        torch.stack(net.losses(net.encoder(part))).sum().backward()
        separate.append([p.grad.clone() for p in net.parameters()])
    for total, first, second in zip(accumulated, *separate, strict=True):
        np.testing.assert_allclose(total, first + second, rtol=1e-4, atol=1e-4)


def test_unknown_gram():
    with pytest.raises(ValueError, match="gram is 'sum'"):
        GradientBalancer("sum")


def test_a_large_task_that_correlates_with_a_small_one_may_get_a_negative_weight():
    v = torch.tensor([[1.0, 0.0], [9.0, 1.0]])
    weights = aligned_weights(v @ v.T)
    assert weights[0] > 0 > weights[1]


def test_common_scale_does_not_matter():
    gram = torch.randn(TASKS, 9, generator=torch.Generator().manual_seed(3))
    gram = gram @ gram.T
    np.testing.assert_allclose(aligned_weights(gram * 2.0**30), aligned_weights(gram), rtol=1e-9)


def test_identical_tasks_keep_their_weight():
    np.testing.assert_allclose(aligned_weights(torch.full((3, 3), 7.0)), 1.0, rtol=1e-9)
