"""Transformer with relative positions: RAVEn's encoder behind its front-end, and its predictors.

Haliassos et al., 2023 (RAVEn, arXiv 2212.06246), section 3, under the tensor names of the public weights:
pre-norm blocks, scaled residual branches (Touvron et al., 2021, CaiT), stochastic depth (Huang et al., 2016),
and, unlike other Transformers, a batch norm before the feed-forward block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from av_ssl.modules.float_batch_norm import FloatBatchNorms
from av_ssl.modules.relative_attention import RelativeSelfAttention, relative_positions

LAYER_NORM_EPS = 1e-12
FFN_NORMS = ("batch", "layer")


@dataclass(frozen=True)
class RelativeTransformerSizes:
    """Size and regularisation; the defaults are those of RAVEn Base's encoder.

    Attributes:
        dropout: of input, positions, both branches of a block, and inside the feed-forward block.
        drop_path: probability that a sample skips a branch, the same in all blocks.
        layer_scale: initial factor of the branches' channels; None: no factor.
        ffn_norm: what comes before the feed-forward block: ``batch`` or ``layer`` norm.
    """

    layers: int = 12
    channels: int = 512
    ffn_channels: int = 2048
    heads: int = 8
    dropout: float = 0.1
    attention_dropout: float = 0.1
    drop_path: float = 0.0
    layer_scale: float | None = 0.1
    ffn_norm: str = "batch"


class DropPath(nn.Module):
    """Stochastic depth: in training, a sample's branch is zero with probability ``rate``, else scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` -> ``[B, T, C]``."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.size(0), 1, 1).bernoulli_(keep).div_(keep)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU in between."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(channels, hidden)
        self.w_2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(self.w_1(x).relu()))


class RelativeTransformerBlock(nn.Module):
    """Self-attention and feed-forward, each on a normalised copy of the residual stream.

    A batch norm counts all frames of the batch, padding too, as in the original.
    """

    gamma_mha: nn.Parameter | None
    gamma_ff: nn.Parameter | None

    def __init__(self, sizes: RelativeTransformerSizes) -> None:
        super().__init__()
        channels = sizes.channels
        self.norm_mha = nn.LayerNorm(channels, LAYER_NORM_EPS)
        self.self_attn = RelativeSelfAttention(channels, sizes.heads, sizes.attention_dropout)
        self.norm_ff = make_ffn_norm(sizes.ffn_norm, channels)
        self.feed_forward = FeedForward(channels, sizes.ffn_channels, sizes.dropout)
        for name in ("gamma_mha", "gamma_ff"):
            self.register_parameter(name, make_layer_scale(sizes.layer_scale, channels))
        self.dropout = nn.Dropout(sizes.dropout)
        self.drop_path = DropPath(sizes.drop_path)

    def forward(self, x: Tensor, positions: Tensor, padding_mask: Tensor | None) -> Tensor:
        """The residual stream ``[B, T, C]`` with the outputs of both branches added."""
        attended = self.self_attn(self.norm_mha(x), positions, padding_mask)
        x = x + self.branch(attended, self.gamma_mha)
        return x + self.branch(self.feed_forward(self.normalized(x)), self.gamma_ff)

    def branch(self, x: Tensor, gamma: Tensor | None) -> Tensor:
        return self.drop_path(self.dropout(x if gamma is None else gamma * x))

    def normalized(self, x: Tensor) -> Tensor:
        if not isinstance(self.norm_ff, _BatchNorm):
            return self.norm_ff(x)
        flat = x.flatten(0, 1).to(self.norm_ff.weight.dtype)
        return self.norm_ff(flat).view(x.shape).to(x.dtype)


def make_layer_scale(factor: float | None, channels: int) -> nn.Parameter | None:
    return None if factor is None else nn.Parameter(torch.full((channels,), factor))


def make_ffn_norm(name: str, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm1d(channels)
    if name == "layer":
        return nn.LayerNorm(channels, LAYER_NORM_EPS)
    raise ValueError(f"ffn_norm is {name!r}; it must be one of {', '.join(FFN_NORMS)}")


class RelativeTransformer(FloatBatchNorms):
    """Blocks and the layer norm behind them. Tensors: ``encoders.{block}.*``, ``after_norm.*``.

    Encoder and predictors are sub-classes, so that these names stand beside those of their other parts, whose
    batch norms stay in float32, too.
    """

    def __init__(self, sizes: RelativeTransformerSizes) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(RelativeTransformerBlock(sizes) for _ in range(sizes.layers))
        self.after_norm = nn.LayerNorm(sizes.channels, LAYER_NORM_EPS)
        self.input_dropout = nn.Dropout(sizes.dropout)

    def run_blocks(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        last: int | None = None,
        collect: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Scale the input, add dropout, run the blocks up to ``last``, without ``after_norm``.

        Args:
            x: projected input ``[B, T, C]``; it is multiplied by sqrt(C) here.
            padding_mask: bool ``[B, T]``, True on padding, which no frame attends to.
            last: 1-based; None: all blocks.
            collect: return the residual stream behind every block, too.

        Returns:
            The residual stream ``[B, T, C]``, and that behind blocks 1, 2, ... if they are collected.
        """
        frames, channels = x.shape[1:]
        positions = relative_positions(frames, channels, x.device).to(x.dtype)
        positions = self.input_dropout(positions)
        x = self.input_dropout(x * math.sqrt(channels))
        outputs: list[Tensor] = []
        for block in self.encoders[:last]:
            x = block(x, positions, padding_mask)
            if collect:
                outputs.append(x)
        return x, outputs
