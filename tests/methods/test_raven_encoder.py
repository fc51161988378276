"""RAVEn's encoders: published sizes and names, masking, padding, and what downstream code calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from av_ssl.methods.raven.encoder import RavenEncoder, RavenEncoderConfig

GREY = {"image_mean": 0.421, "image_std": 0.165}
TINY = {
    "encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2,
    "resnet_width": 4, **GREY,
}  # fmt: skip
BASE: dict[str, Any] = {}
BASE_PLUS = {"encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12}
LARGE = {
    "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}  # fmt: skip
MODALITIES = ("audio", "video")


def encoder(modality: str, **overrides: Any) -> RavenEncoder:
    """With batch norms that have seen something."""
    torch.manual_seed(0)
    net = RavenEncoder(RavenEncoderConfig(**{**TINY, **overrides}), modality)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def signal(modality: str, frames: int, clips: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if modality == "audio":
        return torch.randint(-9000, 9000, (clips, frames * 640), dtype=torch.int16, generator=generator)
    return torch.randint(0, 256, (clips, 1, frames, 24, 24), dtype=torch.uint8, generator=generator)


def padded(x: Tensor, modality: str, frames: int, by: int) -> Tensor:
    """Zeros behind the clip, as the data pipeline leaves them."""
    assert (x.size(1) if modality == "audio" else 640 * x.size(2)) == 640 * frames
    extra = (0, 640 * by) if modality == "audio" else (0, 0, 0, 0, 0, by)
    return nn.functional.pad(x, extra)


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
def test_published_sizes(modality: str, sizes: dict[str, Any], tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        net = RavenEncoder(RavenEncoderConfig(**sizes, **GREY), modality)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.parametrize("modality", MODALITIES)
def test_published_names(modality: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder(modality).state_dict().items()}
    block = {
        name.removeprefix("encoders.1."): shape for name, shape in shapes.items() if "encoders.1." in name
    }
    assert block == {
        "gamma_mha": (16,), "gamma_ff": (16,),
        "norm_mha.weight": (16,), "norm_mha.bias": (16,),
        **{f"norm_ff.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
        "norm_ff.num_batches_tracked": (),
        **{f"self_attn.linear_{name}.weight": (16, 16) for name in ("q", "k", "v", "out", "pos")},
        **{f"self_attn.linear_{name}.bias": (16,) for name in ("q", "k", "v", "out")},
        "self_attn.pos_bias_u": (2, 8), "self_attn.pos_bias_v": (2, 8),
        "feed_forward.w_1.weight": (24, 16), "feed_forward.w_1.bias": (24,),
        "feed_forward.w_2.weight": (16, 24), "feed_forward.w_2.bias": (16,),
    }  # fmt: skip
    assert shapes["embed.0.weight"] == (16, 32)
    assert shapes["after_norm.weight"] == (16,)
    stem = "frontend3D.0.weight" if modality == "video" else "trunk.conv1.weight"
    assert shapes[f"frontend.{stem}"] == ((4, 1, 5, 7, 7) if modality == "video" else (4, 1, 80))
    assert "frontend.trunk.layer3.0.downsample.1.running_var" in shapes


@pytest.mark.parametrize("modality", MODALITIES)
def test_layers_and_final_norm(modality: str) -> None:
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
def test_features_do_not_depend_on_padding(modality: str) -> None:
    """So that a batch is decoded as its clips are alone. In training they depend on each other."""
    net, x = encoder(modality), signal(modality, 8, clips=1)
    padding = (torch.arange(12) >= 8)[None]
    with torch.no_grad():
        alone, _ = net.encode(x)
        longer, _ = net.encode(padded(x, modality, 8, by=4), padding)
        given, _ = net.encode(padded(x, modality, 8, by=4), padding, torch.arange(8))
    np.testing.assert_allclose(longer[:, :8], alone, atol=1e-5)
    np.testing.assert_allclose(given[:, :8], alone, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_in_training_clips_of_a_batch_depend_on_each_other(modality: str) -> None:
    net = encoder(modality, dropout=0.0, attention_dropout=0.0).train()
    x = signal(modality, 6)
    with torch.no_grad():
        together, _ = net.encode(x)
        alone, _ = net.encode(x[:1])
    assert not torch.allclose(together[:1], alone, atol=1e-3)


def test_masked_pictures_are_mean_grey() -> None:
    net, x = encoder("video"), signal("video", 5)
    mask = torch.tensor([[False, True, True, False, False], [True, False, False, False, True]])
    seen: list[Tensor] = []
    net.frontend.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        net.encode(x, mask=mask)
    expected = ((x[:, 0] / 255.0 - 0.421) / 0.165) * ~mask[..., None, None]
    assert seen[0][mask].abs().max() == 0
    np.testing.assert_allclose(seen[0], expected, atol=1e-4)


def test_masked_sound_is_silence() -> None:
    net, x = encoder("audio"), signal("audio", 5)
    mask = torch.tensor([[False, True, True, False, False], [True, False, False, False, True]])
    silent = x * ~mask.repeat_interleave(640, dim=1)
    with torch.no_grad():
        assert torch.equal(net.encode(x, mask=mask)[0], net.encode(silent)[0])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_gradient_into_the_front_end(modality: str, scale: float) -> None:
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


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_parameter_learns_in_bfloat16(modality: str) -> None:
    net = encoder(modality).bfloat16().train()
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    out, _ = net.encode(signal(modality, 6), padding)
    assert out.dtype == torch.bfloat16
    out[~padding][:, 0].float().square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# -- what is refused -----------------------------------------------------------------------------------------


def test_the_other_stream_is_not_enough() -> None:
    with pytest.raises(ValueError, match="source has no audio"):
        encoder("audio").extract_features({"audio": None, "video": signal("video", 5)})


@pytest.mark.parametrize("layer", [0, 3])
def test_layer_out_of_range(layer: int) -> None:
    with pytest.raises(ValueError, match="layers 1 to 2"):
        encoder("audio").extract_features({"audio": signal("audio", 5)}, output_layer=layer)


def test_masks_in_feature_extraction() -> None:
    with pytest.raises(ValueError, match="mask=True: this encoder has no masks"):
        encoder("audio").extract_features({"audio": signal("audio", 5)}, None, True)


def test_padding_mask_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"audio of 5 frames in 2 clips, but .* of shape \(2, 6\)"):
        encoder("audio").encode(signal("audio", 5), torch.zeros(2, 6, dtype=torch.bool))


def test_unknown_modality() -> None:
    with pytest.raises(ValueError, match="modality is 'touch'"):
        RavenEncoder(RavenEncoderConfig(**TINY), "touch")
