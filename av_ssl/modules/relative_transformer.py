"""Transformer with relative positions: RAVEn's encoder after its front-end, and its predictors.

Haliassos et al., 2023 (RAVEn, arXiv 2212.06246), section 3, under the tensor names of the public weights:
pre-norm blocks, scaled residual branches (Touvron et al., 2021, CaiT), stochastic depth (Huang et al., 2016),
and, unlike other Transformers, a batch norm before the feed-forward block.

Self-attention (Dai et al., 2019, Transformer-XL, section 3.3) computes the same as fairseq's
``RelPositionMultiHeadedAttention`` and has its parameter names (a test compares the two), batch first and
through ``scaled_dot_product_attention``: the terms that depend on the distance are an additive bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from av_ssl.modules.masked_frames import replace_frames

Change = Callable[[Tensor], Tensor]


# -- batch norms ---------------------------------------------------------------------------------------------


class FloatBatchNorms(nn.Module):
    """A module whose batch norms, at any depth, stay in float32 when it is cast to half precision.

    Half precision is too coarse for the steps of running statistics, and cuDNN normalises half-precision
    input only with float32 weights.  Such a batch norm gives its output in the input's dtype.
    """

    def _apply(self, fn: Change, recurse: bool = True) -> FloatBatchNorms:
        # Not in a class of the batch norms' own: conversion to SyncBatchNorm would lose it.
        if recurse:
            apply_to_children(self, fn)
        return super()._apply(fn, recurse=False)


def apply_to_children(module: nn.Module, fn: Change) -> None:
    for child in module.children():
        if isinstance(child, _BatchNorm):
            child._apply(without_rounding(fn))
        else:
            apply_to_children(child, fn)
            child._apply(fn, recurse=False)


def without_rounding(fn: Change) -> Change:
    """What ``fn`` does to a module's tensors (move, cast, ...), but no cast of floats to half precision."""

    def apply(tensor: Tensor) -> Tensor:
        changed = fn(tensor)
        if tensor.is_floating_point() and changed.dtype in (torch.float16, torch.bfloat16):
            return tensor.to(changed.device)
        return changed

    return apply


def synchronise_batch_norm(module: nn.Module) -> None:
    """Let every batch norm in a module compute its statistics over all GPUs, if there are several.

    fairseq does not do this.  Call it when the module is on the device that trains it, which in fairseq is
    after it was built: torch has no synchronised batch norm on CPUs, where each process keeps its own
    statistics.  Parameters stay the same objects, so optimizers and wrappers are not affected.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1 and on_gpu(module):
        nn.SyncBatchNorm.convert_sync_batchnorm(module)


def on_gpu(module: nn.Module) -> bool:
    return next(module.parameters()).is_cuda


def use_batch_statistics(module: nn.Module, drop_path: bool = False) -> None:
    """Eval mode except for batch norms, which use the batch's statistics, and, if asked for, drop path."""
    module.eval()
    kinds = (_BatchNorm, DropPath) if drop_path else (_BatchNorm,)
    for part in module.modules():
        if isinstance(part, kinds):
            part.train()


# -- attention -----------------------------------------------------------------------------------------------


def relative_positions(frames: int, channels: int, device: torch.device) -> Tensor:
    """Sines (even channels) and cosines (odd) of the distances T-1, ..., -(T-1): float32 ``[2T - 1, C]``."""
    distance = torch.arange(frames - 1, -frames, -1, device=device, dtype=torch.float32)
    even = torch.arange(0, channels, 2, device=device, dtype=torch.float32)
    angle = distance[:, None] * torch.pow(10000.0, -even / channels)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def by_key(x: Tensor) -> Tensor:
    """From scores by distance to scores by key: ``[..., T, 2T - 1]`` -> ``[..., T, T]``, a view.

    Row i of the result starts at column T-1-i, the distance from i to key 0.  In memory that is 2T-2 places
    behind the start of the row before.
    """
    frames = x.size(-2)
    if frames == 1:
        return x
    step = 2 * frames - 2
    flat = x.flatten(-2)
    return flat[..., frames - 1 : frames - 1 + frames * step].unflatten(-1, (frames, step))[..., :frames]


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention with learned biases u and v towards content and distance.

    Initial weights: PyTorch's for ``linear_*``, Xavier's for ``pos_bias_*`` ``[heads, C / heads]``.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        if channels % heads or channels % 2:
            raise ValueError(
                f"{channels} channels for {heads} attention heads: they must be even and a multiple of the "
                "heads (encoder_embed_dim and encoder_attention_heads, or predictor_embed_dim and "
                "predictor_attention_heads)"
            )
        self.heads = heads
        self.linear_q = nn.Linear(channels, channels)
        self.linear_k = nn.Linear(channels, channels)
        self.linear_v = nn.Linear(channels, channels)
        self.linear_out = nn.Linear(channels, channels)
        self.linear_pos = nn.Linear(channels, channels, bias=False)
        self.pos_bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, channels // heads)))
        self.pos_bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, channels // heads)))
        # A module, so that code that puts all dropout of a network into eval mode finds it.
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Attend from each frame of ``x [B, T, C]`` to all that are not padding; see
        :func:`relative_positions`. A row of padding only stays finite."""
        batch, frames, channels = x.shape
        q, k, v = (
            projection(x).view(batch, frames, self.heads, -1)
            for projection in (self.linear_q, self.linear_k, self.linear_v)
        )
        bias = self.position_bias(q, positions, padding_mask)
        x = F.scaled_dot_product_attention(
            (q + self.pos_bias_u.to(q.dtype)).transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=bias,
            dropout_p=self.dropout.p if self.dropout.training else 0.0,
        )
        return self.linear_out(x.transpose(1, 2).reshape(batch, frames, channels))

    def position_bias(self, q: Tensor, positions: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Scores by distance ``[B, heads, T, T]``, so low for padded keys that their weight is exactly 0."""
        scale = q.size(-1) ** -0.5
        distances = self.linear_pos(positions).view(positions.size(0), self.heads, -1)
        asked = (q + self.pos_bias_v.to(q.dtype)) * scale
        bias = by_key(torch.einsum("bthd,rhd->bhtr", asked, distances))
        if padding_mask is None:
            return bias.contiguous()
        # Half of the lowest number, so that adding a score of content cannot give minus infinity: a row with
        # only padding would be NaN.
        return bias.masked_fill(padding_mask[:, None, None, :], torch.finfo(bias.dtype).min / 2)


# -- Transformer ---------------------------------------------------------------------------------------------

LAYER_NORM_EPS = 1e-12
FFN_NORMS = ("batch", "layer")


@dataclass(frozen=True)
class RelativeTransformerSizes:
    """Size and regularisation; the defaults are those of RAVEn Base's encoder.

    Attributes:
        dropout: of input, positions, both branches of a block, and inside the feed-forward block.
        drop_path: probability that a sample skips a branch, the same in all blocks.
        layer_scale: initial factor of the branches' channels; None: no factor.
        ffn_norm: the norm before the feed-forward block: ``batch`` or ``layer``.
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

    A batch norm takes all frames of the batch, padding included, as in the original.
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
            scale = None if sizes.layer_scale is None else torch.full((channels,), sizes.layer_scale)
            self.register_parameter(name, None if scale is None else nn.Parameter(scale))
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


def make_ffn_norm(name: str, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm1d(channels)
    if name == "layer":
        return nn.LayerNorm(channels, LAYER_NORM_EPS)
    raise ValueError(f"ffn_norm is {name!r}; it must be one of {', '.join(FFN_NORMS)}")


class RelativeTransformer(FloatBatchNorms):
    """Blocks and the layer norm after them. Tensors: ``encoders.{block}.*``, ``after_norm.*``.

    Encoder and predictors are sub-classes, so that these names are at the level of their other parts'.
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
        """Scale the input by sqrt(C), add dropout, run the blocks up to ``last``, without ``after_norm``.

        Args:
            x: projected input ``[B, T, C]``.
            padding_mask: bool ``[B, T]``, True on padding, which no frame attends to.
            last: 1-based; None: all blocks.

        Returns:
            The residual stream ``[B, T, C]``, and with ``collect`` that after blocks 1, 2, ...
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


# -- predictor -----------------------------------------------------------------------------------------------

MASK_EMBEDDING_STD = 0.02


class MaskedProjection(nn.Module):
    """Linear layer whose output is replaced by a learned vector where the student's input was masked."""

    def __init__(self, dim_in: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, channels)
        self.mask_emb = nn.Parameter(torch.randn(channels) * MASK_EMBEDDING_STD)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x [B, T, dim_in]``, ``mask`` bool ``[B, T]`` -> ``[B, T, channels]``."""
        x = self.linear(x)
        # The vector is in the graph even where nothing is masked: distributed training needs its gradient.
        return x + 0 * self.mask_emb if mask is None else replace_frames(x, mask, self.mask_emb)


class Predictor(RelativeTransformer):
    """A narrow Transformer from a student's ``dim_in`` to a teacher's ``dim_out`` channels (section 3).

    It does not get the student's output at masked frames, so they are predicted from the frames around them.
    """

    def __init__(self, dim_in: int, dim_out: int, sizes: RelativeTransformerSizes) -> None:
        super().__init__(sizes)
        self.embed = MaskedProjection(dim_in, sizes.channels)
        self.last_linear = nn.Linear(sizes.channels, dim_out)

    def forward(self, x: Tensor, mask: Tensor | None = None, padding_mask: Tensor | None = None) -> Tensor:
        """``[B, T, dim_in]`` -> ``[B, T, dim_out]``; ``mask [B, T]``: where the student's was masked."""
        x, _ = self.run_blocks(self.embed(x, mask), padding_mask)
        return self.last_linear(self.after_norm(x))
