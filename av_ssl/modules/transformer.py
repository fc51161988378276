"""Transformer encoder with a convolutional positional embedding, under wav2vec 2.0's tensor names.

It computes what fairseq 0.12.2's ``wav2vec2.TransformerEncoder`` computes (a test holds the two together),
batch first, with attention by ``scaled_dot_product_attention`` and weights that can be copied before the
first forward pass.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.utils import get_activation_fn, get_available_activation_fns
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from av_ssl.compat.keys import option
from av_ssl.modules.convolution import convolve

ACTIVATIONS = ChoiceEnum(get_available_activation_fns())


@dataclass
class TransformerConfig(FairseqDataclass):
    """Size and regularisation of the Transformer encoder; the defaults are AV-HuBERT Base's."""

    encoder_layers: int = option(12, "number of Transformer layers")
    encoder_embed_dim: int = option(768, "channels C of the encoder")
    encoder_ffn_embed_dim: int = option(3072, "channels of the feed-forward blocks")
    encoder_attention_heads: int = option(12, "attention heads")
    activation_fn: ACTIVATIONS = option("gelu", "activation of the feed-forward blocks")  # type: ignore[valid-type]
    dropout: float = option(0.1, "dropout before the layers and after each block")
    attention_dropout: float = option(0.1, "dropout of attention weights")
    activation_dropout: float = option(0.0, "dropout inside the feed-forward blocks")
    encoder_layerdrop: float = option(0.0, "probability of skipping a layer")
    layer_norm_first: bool = option(False, "layer norm before each block, not after it")
    conv_pos: int = option(128, "kernel of the positional convolution, in frames")
    conv_pos_groups: int = option(16, "groups of the positional convolution")
    checkpoint_activations: bool = option(False, "recompute layers in the backward pass to save memory")


class WeightNormConv1d(nn.Module):
    """Grouped 1-D convolution whose kernel is normalised over all but its time axis (weight norm, dim 2).

    ``torch.nn.utils.weight_norm`` computes the same and is deprecated; its successor renames the tensors
    ``weight_g`` and ``weight_v``, which published checkpoints hold.
    """

    def __init__(self, channels: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.padding = kernel_size // 2
        std = math.sqrt(4 / (kernel_size * channels))
        weight = torch.randn(channels, channels // groups, kernel_size) * std
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.weight_v = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight_v.float().norm(dim=(0, 1), keepdim=True).to(self.weight_v.dtype)
        weight = self.weight_v * (self.weight_g / norm)
        if x.device.type != "cpu":
            return convolve(F.conv1d, x, weight, self.bias, padding=self.padding, groups=self.groups)
        # A CPU is up to twice as fast on images of height 1 whose channels are last, as those of x are.
        image = x.transpose(1, 2).unsqueeze(1).permute(0, 3, 1, 2)
        weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        y = convolve(F.conv2d, image, weight, self.bias, padding=(0, self.padding), groups=self.groups)
        return y.squeeze(2)


class PositionalConvolution(nn.Sequential):
    """Relative positions by a wide convolution (Baevski et al., 2020, section 2); item 0 has the tensors."""

    def __init__(self, channels: int, kernel_size: int, groups: int) -> None:
        super().__init__(WeightNormConv1d(channels, kernel_size, groups))
        self.surplus = 1 - kernel_size % 2

    def forward(self, x: Tensor) -> Tensor:
        y = self[0](x.transpose(1, 2))
        if self.surplus:
            y = y[..., : -self.surplus]
        return F.gelu(y).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention, batch first."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"encoder_embed_dim {channels} is not a multiple of encoder_attention_heads {heads}"
            )
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        """``x [B, T, C]``, ``attend`` bool ``[B, 1, 1, T]``, True on frames that are not padding."""
        batch, frames, channels = x.shape
        q, k, v = (
            projection(x).view(batch, frames, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
        return self.out_proj(x.transpose(1, 2).reshape(batch, frames, channels))


class TransformerLayer(nn.Module):
    """One encoder layer, normalised before (``layer_norm_first``) or after its two blocks."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        channels, ffn_channels = cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim
        self.self_attn = SelfAttention(channels, cfg.encoder_attention_heads, cfg.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, ffn_channels)
        self.fc2 = nn.Linear(ffn_channels, channels)
        self.final_layer_norm = nn.LayerNorm(channels)
        self.dropout, self.activation_dropout = nn.Dropout(cfg.dropout), nn.Dropout(cfg.activation_dropout)
        # fairseq's gelu takes a copy in float32; torch's computes in float32, too, without one.
        gelu = str(cfg.activation_fn) == "gelu"
        self.activation = F.gelu if gelu else get_activation_fn(str(cfg.activation_fn))
        self.norm_first = cfg.layer_norm_first

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))

    def forward(self, x: Tensor, attend: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the layer's output and its feed-forward block's before dropout and residual: [B, T, C]."""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), attend))
            ffn = self.feed_forward(self.final_layer_norm(x))
            return x + self.dropout(ffn), ffn
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, attend)))
        ffn = self.feed_forward(x)
        return self.final_layer_norm(x + self.dropout(ffn)), ffn


class LayerOutput(NamedTuple):
    """The residual stream after a layer and the layer's feed-forward output, both ``[B, T, C]``."""

    residual: Tensor
    ffn: Tensor


class TransformerEncoder(nn.Module):
    """Positional convolution, Transformer layers, and (for ``layer_norm_first``) a final layer norm.

    Args:
        layers: their number, where it is not ``encoder_layers``.
    """

    def __init__(self, cfg: TransformerConfig, layers: int | None = None) -> None:
        super().__init__()
        channels = cfg.encoder_embed_dim
        self.pos_conv = PositionalConvolution(channels, cfg.conv_pos, cfg.conv_pos_groups)
        self.layers = nn.ModuleList(TransformerLayer(cfg) for _ in range(layers or cfg.encoder_layers))
        self.layer_norm = nn.LayerNorm(channels)
        self.norm_first = cfg.layer_norm_first
        self.layerdrop = cfg.encoder_layerdrop
        self.checkpoint_activations = cfg.checkpoint_activations
        self.dropout = nn.Dropout(cfg.dropout)
        self.layers.apply(init_linear)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """``[B, T, C]`` -> ``[B, T, C]``, the final layer norm included."""
        x, _ = self.run(x, padding_mask)
        return self.layer_norm(x) if self.norm_first else x

    def run(
        self, x: Tensor, padding_mask: Tensor | None = None, first: int | None = None, last: int | None = None
    ) -> tuple[Tensor, list[LayerOutput]]:
        """Run the layers up to ``last`` (1-based; None: all), without the final layer norm.

        Args:
            x: fused features ``[B, T, C]``.
            padding_mask: bool ``[B, T]``, True on padding.
            first: collect the outputs of layers ``first`` (1-based) to ``last``; None: none. Those skipped by
                layer drop are missing, so collect in eval mode.
        """
        attend = None
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0)
            attend = ~padding_mask[:, None, None, :]
        x = x + self.pos_conv(x)
        if not self.norm_first:
            x = self.layer_norm(x)
        x = self.dropout(x)
        outputs: list[LayerOutput] = []
        for number, layer in enumerate(self.layers[:last], 1):
            if self.training and self.layerdrop > 0 and torch.rand(()).item() < self.layerdrop:
                continue
            if self.checkpoint_activations and self.training:
                x, ffn = checkpoint(layer, x, attend, use_reentrant=False)
            else:
                x, ffn = layer(x, attend)
            if first is not None and number >= first:
                outputs.append(LayerOutput(x, ffn))
        return x, outputs


def init_linear(module: nn.Module) -> None:
    """BERT's initialisation, as wav2vec 2.0 uses it: N(0, 0.02), biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)
