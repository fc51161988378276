"""Aggregation: a sequence of vectors, some of them padding, to one vector.

Mean and statistics pooling; attentive pooling with one head (Okabe, Koshinaka, Shinoda, 2018), with and
without the weighted deviation; a small Transformer with a summary token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-5
"""Under the square root, whose gradient has no bound at 0: one vector has no variance."""


class Pooling(nn.Module):
    """``x [B, N, C]``, ``padding_mask`` bool ``[B, N]`` -> ``[B, output_dim]``."""

    output_dim: int


class MeanPooling(Pooling):
    """Mean over real vectors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = channels

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """``x [B, N, C]``, ``padding_mask`` bool ``[B, N]`` -> ``[B, C]``."""
        return weighted_mean(x, equal_weights(padding_mask)).to(x.dtype)


class StatisticsPooling(Pooling):
    """Mean and standard deviation over real vectors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = 2 * channels

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """``x [B, N, C]``, ``padding_mask`` bool ``[B, N]`` -> ``[B, 2 C]``."""
        return weighted_statistics(x, equal_weights(padding_mask)).to(x.dtype)


class AttentivePooling(Pooling):
    """Weighted mean, and with ``deviation`` weighted standard deviation; a small network gives the weights.

    Args:
        channels: C.
        deviation: attentive statistics pooling in place of self-attentive pooling.
        hidden: channels of that network.
    """

    def __init__(self, channels: int, deviation: bool, hidden: int = 128) -> None:
        super().__init__()
        self.deviation = deviation
        self.output_dim = 2 * channels if deviation else channels
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """``x [B, N, C]``, ``padding_mask`` bool ``[B, N]`` -> ``[B, C]`` or ``[B, 2 C]``."""
        scores = self.score(torch.tanh(self.hidden(x))).squeeze(-1).float()
        # Not minus infinity, of which softmax makes NaN where there is nothing but padding.
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(padding_mask, lowest).softmax(dim=1) * ~padding_mask
        pool = weighted_statistics if self.deviation else weighted_mean
        return pool(x, weights).to(x.dtype)


class TransformerPooling(Pooling):
    """What a learned summary token has gathered after two Transformer layers, whatever their order."""

    def __init__(self, channels: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be divided among {heads} attention heads")
        self.output_dim = channels
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, channels))
        layer = nn.TransformerEncoderLayer(channels, heads, 2 * channels, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """``x [B, N, C]``, ``padding_mask`` bool ``[B, N]`` -> ``[B, C]``."""
        x = torch.cat([self.summary.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        padded = nn.functional.pad(padding_mask, (1, 0))
        return self.layers(x, src_key_padding_mask=padded)[:, 0]


POOLINGS = ("mean", "stats", "sap", "asp", "self_attention")


def make_pooling(name: str, channels: int) -> Pooling:
    """``mean``, ``stats`` (mean and deviation), ``sap`` (self-attentive), ``asp`` (attentive statistics) or
    ``self_attention`` (Transformer); its attribute ``output_dim`` is the size of what it returns."""
    if name == "mean":
        return MeanPooling(channels)
    if name == "stats":
        return StatisticsPooling(channels)
    if name in ("sap", "asp"):
        return AttentivePooling(channels, deviation=name == "asp")
    if name == "self_attention":
        return TransformerPooling(channels)
    raise ValueError(f"pooling is {name!r}; it must be one of {', '.join(POOLINGS)}")


def equal_weights(padding_mask: Tensor) -> Tensor:
    """Float32 ``[B, N]`` that sum to 1 over the real vectors of a clip (to 0 where there is none)."""
    real = (~padding_mask).float()
    return real / real.sum(1, keepdim=True).clamp(min=1)


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Float32 ``[B, C]`` of ``x [B, N, C]`` and ``weights [B, N]``."""
    return torch.einsum("bnc,bn->bc", x.float(), weights)


def weighted_statistics(x: Tensor, weights: Tensor) -> Tensor:
    """Mean and standard deviation, float32 ``[B, 2 C]``."""
    mean = weighted_mean(x, weights)
    variance = weighted_mean((x.float() - mean[:, None]).square(), weights)
    return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=-1)
