"""Synthetic files in the layout of RAVEn's published weights, and what their names mean, written out."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor

from av_ssl.methods.raven.encoder import RavenEncoder, RavenEncoderConfig
from av_ssl.methods.raven.pretraining import RavenConfig, RavenModel

TINY = {
    "encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2,
    "resnet_width": 4, "image_mean": 0.421, "image_std": 0.165,
}  # fmt: skip
PREDICTORS = {"predictor_embed_dim": 12, "predictor_ffn_embed_dim": 24, "predictor_attention_heads": 2}
HEADS = 2


def pretrained() -> RavenModel:
    """Both students and their predictors, at random."""
    torch.manual_seed(0)
    cfg = OmegaConf.merge(OmegaConf.structured(RavenConfig()), {**TINY, **PREDICTORS})
    return RavenModel(cfg).eval()


def published(modality: str, prefix: str = "", **overrides: object) -> dict[str, Tensor]:
    """Random tensors under the published names, the same with every version of numpy and torch."""
    names = RavenEncoder(RavenEncoderConfig(**{**TINY, **overrides}), modality).state_dict()
    return {
        prefix + name: drawn(np.random.RandomState(seed), name, tensor)
        for seed, (name, tensor) in enumerate(sorted(names.items()))
    }


def drawn(random: np.random.RandomState, name: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return torch.tensor(7)
    if name.endswith("running_var"):
        x = random.uniform(0.5, 1.5, like.shape)
    elif like.dim() > 1:
        x = random.randn(*like.shape) * math.sqrt(2 / like[0].numel())
    else:
        x = 0.2 * random.randn(*like.shape) + (name.endswith("weight") or "gamma" in name)
    return torch.from_numpy(x).float()


def signal(modality: str, frames: int, clips: int = 2) -> Tensor:
    """Raw audio int16 ``[B, 640 * T]`` or video uint8 ``[B, 1, T, 24, 24]``, of noise."""
    random = np.random.RandomState(0)
    if modality == "audio":
        return torch.from_numpy(random.randint(-32768, 32768, (clips, 640 * frames)).astype(np.int16))
    return torch.from_numpy(random.randint(0, 256, (clips, 1, frames, 24, 24)).astype(np.uint8))


def reference(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Features ``[B, T, D]`` of normalised video ``[B, 1, T, H, W]`` or audio ``[B, 640 * T]``."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = audio_front_end(w, x) if x.dim() == 2 else video_front_end(w, x)
    x = F.linear(x, w["embed.0.weight"], w["embed.0.bias"]) * math.sqrt(w["embed.0.weight"].size(0))
    for block in sorted({name.split(".")[1] for name in w if name.startswith("encoders.")}):
        prefix = f"encoders.{block}."
        x = transformer_block({k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}, x)
    return layer_norm(w, "after_norm", x)


def batch_norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    tensors = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *tensors)


def layer_norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)


def trunk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    for stage in range(1, 5):
        for block in range(2):
            name = f"frontend.trunk.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.silu(batch_norm(w, f"{name}.bn1", y))
            y = batch_norm(w, f"{name}.bn2", conv(y, w[f"{name}.conv2.weight"], padding=1))
            if stride == 2:
                shortcut = conv(x, w[f"{name}.downsample.0.weight"], stride=2)
                x = batch_norm(w, f"{name}.downsample.1", shortcut)
            x = F.silu(x + y)
    return x


def audio_front_end(w: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.conv1d(x[:, None], w["frontend.trunk.conv1.weight"], stride=4, padding=38)
    x = trunk(w, F.silu(batch_norm(w, "frontend.trunk.bn1", x)))
    return F.avg_pool1d(x, 20, 20).transpose(1, 2)


def video_front_end(w: dict[str, Tensor], x: Tensor) -> Tensor:
    clips, _, frames = x.shape[:3]
    x = F.conv3d(x, w["frontend.frontend3D.0.weight"], stride=(1, 2, 2), padding=(2, 3, 3))
    x = F.silu(batch_norm(w, "frontend.frontend3D.1", x))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = trunk(w, x.transpose(1, 2).flatten(0, 1))
    return x.mean(dim=(2, 3)).view(clips, frames, -1)


def transformer_block(w: dict[str, Tensor], x: Tensor) -> Tensor:
    attended = attention(w, layer_norm(w, "norm_mha", x))
    x = x + w["gamma_mha"] * attended
    y = batch_norm(w, "norm_ff", x.transpose(1, 2)).transpose(1, 2)
    y = F.relu(F.linear(y, w["feed_forward.w_1.weight"], w["feed_forward.w_1.bias"]))
    return x + w["gamma_ff"] * F.linear(y, w["feed_forward.w_2.weight"], w["feed_forward.w_2.bias"])


def attention(w: dict[str, Tensor], x: Tensor) -> Tensor:
    clips, frames, channels = x.shape
    q, k, v = (
        F.linear(x, w[f"self_attn.linear_{name}.weight"], w[f"self_attn.linear_{name}.bias"])
        .view(clips, frames, HEADS, -1)
        .transpose(1, 2)
        for name in "qkv"
    )
    distance = torch.arange(frames)[:, None] - torch.arange(frames)  # [i, j]: i - j
    angle = distance[..., None] / 10000 ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    sinusoid = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    r = F.linear(sinusoid, w["self_attn.linear_pos.weight"]).view(frames, frames, HEADS, -1)
    u, v_bias = (w[f"self_attn.pos_bias_{name}"][:, None] for name in "uv")
    content = (q + u) @ k.transpose(-2, -1)
    position = torch.einsum("bhid,ijhd->bhij", q + v_bias, r)
    weights = ((content + position) / math.sqrt(channels // HEADS)).softmax(-1)
    out = (weights @ v).transpose(1, 2).flatten(2)
    return F.linear(out, w["self_attn.linear_out.weight"], w["self_attn.linear_out.bias"])
