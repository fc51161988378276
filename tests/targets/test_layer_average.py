import numpy as np
import pytest
import torch
import torch.nn.functional as F

from av_ssl.targets.ema import averaged_targets, instance_norm


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return [torch.randn(2, 30, 8) * 3 + 1 for _ in range(4)]


def test_equals_instance_norm_without_padding(layers):
    expected = sum(F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in layers) / 4
    np.testing.assert_allclose(averaged_targets(layers, None), expected, atol=1e-5)


def test_zero_mean_over_time(layers):
    assert averaged_targets(layers, None).mean(dim=1).abs().max() < 1e-5


def test_padding_changes_nothing(layers):
    padding = torch.zeros(2, 50, dtype=torch.bool)
    padding[:, 30:] = True
    padded = [F.pad(layer, (0, 0, 0, 20), value=9.0) for layer in layers]
    np.testing.assert_allclose(
        averaged_targets(padded, padding)[:, :30], averaged_targets(layers, None), atol=1e-5
    )


def test_statistics_are_float32():
    assert instance_norm(torch.randn(1, 5, 2, dtype=torch.bfloat16), None).dtype == torch.float32


def test_layer_norm_of_the_mean(layers):
    y = averaged_targets(layers, None, normalize_sum=True)
    np.testing.assert_allclose(y, F.layer_norm(averaged_targets(layers, None), (8,)), atol=1e-6)


def test_nothing_to_average():
    with pytest.raises(ValueError, match="no layers"):
        averaged_targets([], None)
