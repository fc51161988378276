"""What privileged information is worth where it is known: linear models on drawn data.

The constructions are those of experiments 3 and 2 of Lopez-Paz et al. (2016): in the first the privileged
variables are the relevant ones of many, in the second they are the inputs without their noise, of which a
student can learn nothing that it could not learn from labels.
"""

import pytest
import torch

from av_ssl.classification.criterion import class_loss
from av_ssl.classification.lupi import embedding_distance

DIMENSIONS, TRAIN, TEST, SEEDS = 50, 200, 2000, 6


def fitted(inputs, outputs, loss):
    """A linear layer that minimises ``loss(layer(inputs))``, a little weight decay beside it."""
    layer = torch.nn.Linear(inputs.size(1), outputs)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(layer(inputs)).mean() + 1e-4 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return layer.requires_grad_(False)


def drawn(relevant: bool):
    """Inputs, privileged variables and labels, training and test together."""
    x = torch.randn(TRAIN + TEST, DIMENSIONS)
    if relevant:
        privileged = x[:, :3]
        return x, privileged, (privileged @ torch.randn(3) > 0).long()
    return x + torch.randn_like(x), x, (x @ torch.randn(DIMENSIONS) > 0).long()


def gain(relevant: bool) -> float:
    """Accuracy in points that a student of embeddings has more than one of labels."""
    x, privileged, y = drawn(relevant)
    train, test = slice(0, TRAIN), slice(TRAIN, None)

    def by_labels(inputs):
        return fitted(inputs[train], 2, lambda logits: class_loss(logits, y[train], 0.0))

    def accuracy(layer, inputs):
        return 100 * (layer(inputs[test]).argmax(-1) == y[test]).float().mean().item()

    teacher = by_labels(privileged)(privileged)
    decision = teacher[:, 1:] - teacher[:, :1]
    embedding = torch.cat([decision, privileged @ torch.randn(privileged.size(1), 1)], dim=1)
    embedding = (embedding - embedding[train].mean(0)) / embedding[train].std(0)
    student = fitted(x[train], 2, lambda found: embedding_distance(found, embedding[train], "mse"))(x)
    return accuracy(by_labels(student), student) - accuracy(by_labels(x), x)


@pytest.mark.parametrize(("relevant", "low", "high"), [(True, 6, 100), (False, -100, 4)])
def test_embeddings_help_where_there_is_something_to_learn(relevant, low, high):
    torch.manual_seed(0)
    assert low <= sum(gain(relevant) for _ in range(SEEDS)) / SEEDS <= high
