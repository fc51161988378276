"""The encoder against fairseq's own, whose tensor names and numbers it shares."""

import copy

import numpy as np
import pytest
import torch
from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder as FairseqEncoder
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config

from av_ssl.modules.transformer import TransformerConfig, TransformerEncoder

SMALL = {
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
}


def encoder(**overrides) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(TransformerConfig(**{**SMALL, "layer_norm_first": True, **overrides})).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    padding = torch.zeros(2, 40, dtype=torch.bool)
    padding[1, 29:] = True
    return torch.randn(2, 40, 32), padding


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kernel", [128, 31])
def test_equals_fairseq(batch, norm_first, kernel):
    x, padding = batch
    cfg = Wav2Vec2Config(**SMALL, layer_norm_first=norm_first, conv_pos=kernel, required_seq_len_multiple=1)
    theirs = FairseqEncoder(cfg).eval()
    ours = encoder(layer_norm_first=norm_first, conv_pos=kernel)
    ours.load_state_dict(theirs.state_dict())  # strict: same names and shapes
    with torch.no_grad():
        expected, layers = theirs(x, padding)
        _, outputs = ours.run(x, padding, first=2)
        np.testing.assert_allclose(ours(x, padding)[~padding], expected[~padding], atol=2e-5)
    assert len(outputs) == 2
    for output, (residual, _, ffn) in zip(outputs, layers[1:], strict=True):
        np.testing.assert_allclose(output.residual[~padding], residual.transpose(0, 1)[~padding], atol=2e-5)
        np.testing.assert_allclose(output.ffn[~padding], ffn.transpose(0, 1)[~padding], atol=2e-5)


def test_padding_changes_nothing(batch):
    x, padding = batch
    net = encoder()
    with torch.no_grad():
        together, alone = net(x, padding)[1, :29], net(x[1:, :29])[0]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_last_layer_without_final_norm(batch):
    x, padding = batch
    net = encoder()
    with torch.no_grad():
        residual, _ = net.run(x, padding, last=3)
        assert not torch.allclose(residual, net(x, padding))
        np.testing.assert_allclose(net.layer_norm(residual), net(x, padding), atol=1e-6)


def test_fresh_encoder_can_be_copied(batch):
    x, padding = batch
    net = encoder()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(net)(x, padding), net(x, padding))


def test_layer_drop_only_in_training(batch):
    x, padding = batch
    net = encoder(encoder_layerdrop=0.999999, dropout=0.0, attention_dropout=0.0)
    with torch.no_grad():
        _, evaluated = net.run(x, padding, first=1)
        _, trained = net.train().run(x, padding, first=1)
    assert (len(evaluated), len(trained)) == (3, 0)


def test_checkpointing_gives_equal_gradients(batch):
    x, padding = batch
    gradients = []
    for recompute in (False, True):
        net = encoder(checkpoint_activations=recompute, dropout=0.0, attention_dropout=0.0).train()
        net(x, padding).square().sum().backward()
        gradients.append(net.layers[0].fc1.weight.grad)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5)


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="encoder_attention_heads"):
        encoder(encoder_attention_heads=5)
