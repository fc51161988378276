"""Self-attention with relative positions (Dai et al., 2019, Transformer-XL, section 3.3).

It computes what fairseq's ``RelPositionMultiHeadedAttention`` computes and has its parameter names (a test
holds the two together), batch first, and through ``scaled_dot_product_attention``: the terms that depend on
the distance go in as an additive bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    Raises:
        ValueError: ``channels`` is not a multiple of ``heads``, or odd.
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
        # A module, so that whoever puts all dropout of a network into eval mode finds this one.
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Attend from each frame to all that are not padding.

        Args:
            x: ``[B, T, C]``.
            positions: ``[2T - 1, C]``, see :func:`relative_positions`.
            padding_mask: bool ``[B, T]``, True on padding. A row of padding only stays finite.
        """
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
        distances = self.linear_pos(positions).view(len(positions), self.heads, -1)
        asked = (q + self.pos_bias_v.to(q.dtype)) * scale
        bias = by_key(torch.einsum("bthd,rhd->bhtr", asked, distances))
        if padding_mask is None:
            return bias.contiguous()
        # Half of the lowest number, so that adding a score of content cannot make it minus infinity: a row of
        # nothing but padding would be NaN.
        return bias.masked_fill(padding_mask[:, None, None, :], torch.finfo(bias.dtype).min / 2)
