"""RAVEn's losses over micro-batches."""

import pytest
import torch
from torch import nn

from av_ssl.methods.raven.pretraining import RavenCriterion, RavenCriterionConfig

PAIRS = ("va", "av", "aa")


class Students(nn.Module):
    """A linear predictor for each pair."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.predictors = nn.ModuleDict({pair: nn.Linear(6, 4) for pair in PAIRS})

    def forward(self, frames):
        pairs = {pair: (self.predictors[pair](x), target) for pair, (x, target) in frames.items()}
        return {"pairs": pairs, "weights": {"va": 1.0, "av": 1.0, "aa": 2.0}, "monitors": {}}


def frames(count, seed):
    """Inputs and targets of so many frames for each pair, of half as many masked ones within audio."""
    generator = torch.Generator().manual_seed(seed)
    counts = {"va": count, "av": count, "aa": count // 2}
    return {
        pair: (torch.randn(n, 6, generator=generator), torch.randn(n, 4, generator=generator))
        for pair, n in counts.items()
    }


def gradients(*batches):
    """What fairseq makes of micro-batches: the sum of their gradients over the sum of their sample sizes."""
    model, criterion = Students(), RavenCriterion(RavenCriterionConfig(), task=None)
    size = 0
    for batch in batches:
        sample = {"net_input": {"frames": batch}, "ntokens": 1, "nsentences": 1}
        loss, sample_size, log = criterion(model, sample)
        assert log["sample_size"] == sample_size
        loss.backward()
        size += sample_size
    return {name: parameter.grad / size for name, parameter in model.named_parameters()}


def test_four_micro_batches_give_the_gradient_of_the_whole():
    batches = [frames(10, seed) for seed in range(4)]
    whole = {
        pair: tuple(torch.cat(parts) for parts in zip(*(batch[pair] for batch in batches), strict=True))
        for pair in PAIRS
    }
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(*batches)[name], gradient, msg=name)


@pytest.mark.parametrize("counts", [(4, 20), (2, 8, 30, 16)])
def test_micro_batches_of_other_lengths_count_the_same(counts):
    """As in the authors' training: the mean of the micro-batches' means."""
    batches = [frames(count, seed) for seed, count in enumerate(counts)]
    each = [gradients(batch) for batch in batches]
    for name, gradient in gradients(*batches).items():
        torch.testing.assert_close(gradient, sum(one[name] for one in each) / len(counts), msg=name)


def test_a_batch_without_masked_frames():
    """Of very short clips; the loss within audio counts nothing."""
    none = torch.zeros(0, 6), torch.zeros(0, 4)
    found = gradients({**frames(4, 0), "aa": none})
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert not found["predictors.aa.weight"].any()
    assert found["predictors.va.weight"].any()
