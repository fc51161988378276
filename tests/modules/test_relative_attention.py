"""Relative attention against its formula and against fairseq's module, whose tensor names it shares."""

import numpy as np
import pytest
import torch
from fairseq.modules.espnet_multihead_attention import RelPositionMultiHeadedAttention
from fairseq.modules.positional_encoding import RelPositionalEncoding

from av_ssl.modules.relative_transformer import RelativeSelfAttention, relative_positions

CHANNELS, HEADS = 16, 2


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return RelativeSelfAttention(CHANNELS, HEADS, dropout=0.0).eval()


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_positions_are_fairseqs(frames):
    theirs = RelPositionalEncoding(50, CHANNELS)(torch.zeros(frames, 1, CHANNELS))  # [2T-1, 1, C]
    ours = relative_positions(frames, CHANNELS, torch.device("cpu"))
    np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_equals_fairseq(attention, frames):
    theirs = RelPositionMultiHeadedAttention(CHANNELS, HEADS, 0.0).eval()
    theirs.load_state_dict(attention.state_dict())  # strict: same names and shapes
    x = torch.randn(2, frames, CHANNELS)
    padding = torch.zeros(2, frames, dtype=torch.bool)
    padding[1, frames // 2 + 1 :] = True
    positions = relative_positions(frames, CHANNELS, x.device)
    with torch.no_grad():
        by_time = x.transpose(0, 1)
        expected, _ = theirs(by_time, by_time, by_time, positions[:, None], padding)
        ours = attention(x, positions, padding)
    np.testing.assert_allclose(ours, expected.transpose(0, 1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_has_no_weight_and_nothing_but_padding_is_finite(attention, dtype):
    attention = attention.to(dtype)
    x = torch.randn(2, 6, CHANNELS, dtype=dtype, requires_grad=True)
    padding = torch.tensor([[False] * 4 + [True] * 2, [True] * 6])
    positions = relative_positions(6, CHANNELS, x.device).to(dtype)
    try:
        out = attention(x, positions, padding)
    except RuntimeError as error:
        if "not implemented for 'Half'" in str(error):
            pytest.skip("torch 2.1 has no products in float16 on CPUs")
        raise
    assert out.isfinite().all()
    out[0, :4].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[0, 4:].abs().max() == 0
    assert x.grad[0, :4].abs().min() > 0


def test_dropout_follows_its_module():
    attention = RelativeSelfAttention(CHANNELS, HEADS, dropout=0.5).train()
    x = torch.randn(1, 6, CHANNELS)
    positions = relative_positions(6, CHANNELS, x.device)
    assert not torch.equal(attention(x, positions, None), attention(x, positions, None))
    attention.dropout.eval()
    assert torch.equal(attention(x, positions, None), attention(x, positions, None))


@pytest.mark.parametrize(("channels", "heads"), [(16, 3), (15, 3)])
def test_sizes_that_do_not_go_together(channels, heads):
    with pytest.raises(ValueError, match="encoder_attention_heads"):
        RelativeSelfAttention(channels, heads, 0.0)
