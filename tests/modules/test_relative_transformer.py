"""Blocks with relative attention, and the predictor made of them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from av_ssl.modules.relative_transformer import (
    DropPath,
    Predictor,
    RelativeTransformer,
    RelativeTransformerSizes,
    relative_positions,
)

SMALL = RelativeTransformerSizes(layers=2, channels=16, ffn_channels=24, heads=2)


def transformer(**overrides) -> RelativeTransformer:
    torch.manual_seed(0)
    return RelativeTransformer(dataclasses.replace(SMALL, **overrides)).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[1, 7:] = True
    return torch.randn(2, 10, 16), padding


def explicit(net: RelativeTransformer, x, padding):
    """The equations of the paper's Transformer, written out for eval mode."""
    positions = relative_positions(x.size(1), x.size(2), x.device)
    u = x * x.size(2) ** 0.5
    for block in net.encoders:
        gammas = [block.gamma_mha, block.gamma_ff] if block.gamma_mha is not None else [1, 1]
        u = u + gammas[0] * block.self_attn(block.norm_mha(u), positions, padding)
        norm, feed_forward = block.norm_ff, block.feed_forward
        if isinstance(norm, nn.BatchNorm1d):
            y = (u - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        else:
            y = nn.functional.layer_norm(u, (u.size(2),), norm.weight, norm.bias, 1e-12)
        u = u + gammas[1] * feed_forward.w_2(feed_forward.w_1(y).relu())
    return u


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("scale", [0.1, None])
def test_equals_the_equations(batch, norm, scale):
    x, padding = batch
    net = transformer(ffn_norm=norm, layer_scale=scale)
    for block in net.encoders:
        for tensor in block.norm_ff.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    with torch.no_grad():
        ours, blocks = net.run_blocks(x, padding, collect=True)
        np.testing.assert_allclose(ours, explicit(net, x, padding), atol=1e-4)
        first, none = net.run_blocks(x, padding, last=1)
    assert len(blocks) == 2
    assert none == []
    assert torch.equal(blocks[1], ours)
    assert torch.equal(blocks[0], first)


def test_layer_scale_starts_at_its_factor():
    names = dict(transformer(layer_scale=0.1).named_parameters())
    assert torch.equal(names["encoders.1.gamma_ff"], torch.full((16,), 0.1))
    assert not [name for name in transformer(layer_scale=None).state_dict() if "gamma" in name]


def test_batch_norm_counts_padding_and_couples_clips(batch):
    x, padding = batch
    net = transformer(dropout=0.0, attention_dropout=0.0).train()
    with torch.no_grad():
        together, _ = net.run_blocks(x, padding)
        alone, _ = net.run_blocks(x[:1])
        other = x.clone()
        other[1, 7:] += 1
        padded_otherwise, _ = net.run_blocks(other, padding)
    assert not torch.allclose(together[:1], alone, atol=1e-4)
    assert not torch.allclose(together[:1], padded_otherwise[:1], atol=1e-4)


def test_half_precision_leaves_the_batch_norm_alone(batch):
    x, padding = batch
    net = transformer().train()
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    half = copy.deepcopy(net).bfloat16()
    for name, tensor in half.state_dict().items():
        kept = ".norm_ff." in name
        assert tensor.dtype == (expected[name].dtype if kept else torch.bfloat16), name
        assert not kept or torch.equal(tensor, expected[name]), name
    out, _ = half.run_blocks(x.bfloat16(), padding)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in half.encoders.parameters())
    assert half.encoders[0].norm_ff.num_batches_tracked == 1
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(net).half()
    assert synced.encoders[0].norm_ff.weight.dtype == torch.float32
    assert net.double().encoders[0].norm_ff.weight.dtype == torch.float64


def test_drop_path():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 3, 2)
    out = drop.train()(x)
    assert torch.equal(out, out[:, :1, :1].expand_as(out))  # one draw a sample
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


def test_all_dropout_is_modules(batch):
    """So that a teacher's can be switched off while its batch norms train."""
    x, padding = batch
    net = transformer(drop_path=0.3).train()
    with torch.no_grad():
        assert not torch.equal(net.run_blocks(x, padding)[0], net.run_blocks(x, padding)[0])
        for module in net.modules():
            if isinstance(module, (nn.Dropout, DropPath)):
                module.eval()
        assert torch.equal(net.run_blocks(x, padding)[0], net.run_blocks(x, padding)[0])


def test_unknown_norm():
    with pytest.raises(ValueError, match="ffn_norm is 'group'"):
        transformer(ffn_norm="group")


# -- the predictor -------------------------------------------------------------------------------------------


def predictor(**overrides) -> Predictor:
    torch.manual_seed(0)
    sizes = {"layers": 2, "channels": 16, "heads": 2, "ffn_channels": 24, "layer_scale": None, **overrides}
    return Predictor(12, 20, RelativeTransformerSizes(**sizes))


@pytest.mark.parametrize(("channels", "parameters"), [(512, 7_357_952), (1024, 7_882_752)])
def test_predictor_has_the_published_size(channels, parameters):
    with torch.device("meta"):
        net = Predictor(channels, channels, RelativeTransformerSizes(layers=2, layer_scale=None))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    names = set(net.state_dict())
    assert {"embed.linear.weight", "embed.mask_emb", "after_norm.bias", "last_linear.bias"} <= names
    assert "encoders.1.norm_ff.running_mean" in names
    assert not [name for name in names if "gamma" in name]


def test_predictor_does_not_see_features_of_masked_frames():
    net, x = predictor().eval(), torch.randn(2, 9, 12)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 2:5] = mask[1, 6:] = True
    noisy = torch.where(mask[..., None], torch.randn_like(x), x)
    with torch.no_grad():
        expected = net(x, mask)
        assert expected.shape == (2, 9, 20)
        assert torch.equal(net(noisy, mask), expected)
        assert not torch.allclose(net(noisy), net(x), atol=1e-3)
        padding = torch.zeros(2, 9, dtype=torch.bool)
        padding[0, 7:] = True
        np.testing.assert_allclose(net(x, mask, padding)[:1, :7], net(x[:1, :7], mask[:1, :7]), atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_every_parameter_of_the_predictor_has_a_gradient(masked):
    net = predictor().train()
    mask = torch.tensor([[True, False, False]]) if masked else None
    net(torch.randn(1, 3, 12), mask).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_mask_embedding_is_small():
    large = predictor(channels=4096, ffn_channels=8)
    assert large.embed.mask_emb.std().item() == pytest.approx(0.02, rel=0.05)
