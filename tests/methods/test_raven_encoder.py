"""RAVEn's encoders: published sizes and names, masking, padding, and what downstream code calls."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from av_ssl.methods.raven.encoder import RavenEncoder, RavenEncoderConfig
from tests.methods.raven_layout import TINY, signal

PIXELS = {"image_mean": 0.421, "image_std": 0.165}
BASE: dict[str, Any] = {}
BASE_PLUS = {"encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12}
LARGE = {
    "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}  # fmt: skip
MODALITIES = ("audio", "video")


def encoder(modality: str, **overrides: Any) -> RavenEncoder:
    """With batch norms that have statistics."""
    torch.manual_seed(0)
    net = RavenEncoder(RavenEncoderConfig(**{**TINY, **overrides}), modality)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def padded(x: Tensor, modality: str, by: int) -> Tensor:
    """Zeros behind the clip, as the data pipeline leaves them."""
    return nn.functional.pad(x, (0, 640 * by) if modality == "audio" else (0, 0, 0, 0, 0, by))


@pytest.mark.parametrize(
    ("modality", "sizes", "tensors", "parameters"),
    [
        ("video", BASE, 412, 52_445_376),
        ("audio", BASE, 412, 45_111_168),
        ("video", BASE_PLUS, 412, 103_747_520),
        ("audio", BASE_PLUS, 412, 96_413_312),
        ("video", LARGE, 700, 339_283_648),
        ("audio", LARGE, 700, 331_949_440),
    ],
)
def test_published_sizes(modality, sizes, tensors, parameters):
    with torch.device("meta"):
        net = RavenEncoder(RavenEncoderConfig(**sizes, **PIXELS), modality)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.parametrize("modality", MODALITIES)
def test_layers_and_final_norm(modality):
    net, x = encoder(modality), signal(modality, 9)
    source = {"audio": None, "video": None, modality: x}
    with torch.no_grad():
        out, blocks = net.encode(x, collect_blocks=True)
        features, padding = net.extract_features(source)
        first, _ = net.extract_features(source, output_layer=1)
        last, _ = net.extract_features(source, output_layer=2)
        zeroth, _ = net.extract_features(source, ret_conv=True)
        assert torch.equal(zeroth, net.project(x))
    assert padding is None
    assert out.shape == (2, 9, 16)
    assert torch.equal(out, features)
    assert len(blocks) == 2
    assert torch.equal(blocks[0], first)
    assert torch.equal(blocks[1], last)
    np.testing.assert_allclose(net.after_norm(last).detach(), out, atol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
def test_features_do_not_depend_on_padding(modality):
    """So that a batch is decoded as its clips are alone. In training they depend on each other."""
    net, x = encoder(modality), signal(modality, 8, clips=1)
    padding = (torch.arange(12) >= 8)[None]
    with torch.no_grad():
        alone, _ = net.encode(x)
        longer, _ = net.encode(padded(x, modality, by=4), padding)
        given, _ = net.encode(padded(x, modality, by=4), padding, torch.arange(8))
    np.testing.assert_allclose(longer[:, :8], alone, atol=1e-5)
    np.testing.assert_allclose(given[:, :8], alone, atol=1e-5)


def test_masked_frames_of_video_are_mean_gray():
    net, x = encoder("video"), signal("video", 5)
    mask = torch.tensor([[False, True, True, False, False], [True, False, False, False, True]])
    seen: list[Tensor] = []
    net.frontend.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        net.encode(x, mask=mask)
    expected = ((x[:, 0] / 255.0 - 0.421) / 0.165) * ~mask[..., None, None]
    assert seen[0][mask].abs().max() == 0
    np.testing.assert_allclose(seen[0], expected, atol=1e-4)


def test_masked_frames_of_audio_are_silence():
    net, x = encoder("audio"), signal("audio", 5)
    mask = torch.tensor([[False, True, True, False, False], [True, False, False, False, True]])
    silent = x * ~mask.repeat_interleave(640, dim=1)
    with torch.no_grad():
        assert torch.equal(net.encode(x, mask=mask)[0], net.encode(silent)[0])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_gradient_into_the_front_end(modality, scale):
    net = encoder(modality, feature_grad_mult=scale, dropout=0.0, attention_dropout=0.0)
    stem = net.frontend.trunk.layer4[1].conv2.weight
    net.encode(signal(modality, 5))[0][..., 0].square().sum().backward()
    assert net.embed[0].weight.grad is not None
    reference = encoder(modality, dropout=0.0, attention_dropout=0.0)
    reference.encode(signal(modality, 5))[0][..., 0].square().sum().backward()
    expected = reference.frontend.trunk.layer4[1].conv2.weight.grad
    if scale == 0:
        assert stem.grad is None
    else:
        np.testing.assert_allclose(stem.grad, scale * expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: net.extract_features({"audio": None, "video": x}), "source has no audio"),
        (lambda net, x: net.extract_features({"audio": x}, output_layer=0), "layers 1 to 2"),
        (lambda net, x: net.extract_features({"audio": x}, output_layer=3), "layers 1 to 2"),
        (lambda net, x: net.extract_features({"audio": x}, None, True), "mask=True"),
        (lambda net, x: net.encode(x, torch.zeros(2, 6) > 0), r"audio of 5 frames in 2 clips.*\(2, 6\)"),
        (lambda net, x: RavenEncoder(net.cfg, "touch"), "modality is 'touch'"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(encoder("audio"), signal("audio", 5))
