"""Aggregation: a sequence of vectors, some of them padding, to one vector.

Mean and statistics pooling; attentive pooling with one head (Okabe, Koshinaka, Shinoda, 2018), with and
without the weighted deviation; a small Transformer with a summary token.

Cutting the streams of a batch into segments, by the index tensors that the data workers drew up.

Task headers: softmax, additive margin (AM, Wang et al., 2018) and additive angular margin (AAM, ArcFace,
Deng et al., 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.modules.frontends import FRAME_SAMPLES

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


def cut_audio(audio: Tensor, frames: Tensor, padding_mask: Tensor) -> Tensor:
    """Filterbanks ``[B, C, T]`` -> ``[N, C, L]``, or a waveform ``[B, 640 T]`` -> ``[N, 640 L]``.

    Args:
        audio: of the batch.
        frames: int64 ``[N, L]``, flat indices b*T+t.
        padding_mask: bool ``[N, L]``, True on frames that come out as zero.
    """
    real = ~padding_mask[..., None]
    if audio.dim() == 2:
        return (audio.reshape(-1, FRAME_SAMPLES)[frames] * real).flatten(1)
    return (audio.transpose(1, 2).flatten(0, 1)[frames] * real).transpose(1, 2)


def cut_video(video: Tensor, frames: Tensor) -> Tensor:
    """Pictures ``[B, 1, T, H, W]`` -> ``[N, 1, L, H, W]``; front-ends leave out padded ones themselves."""
    return video.flatten(0, 2)[frames][:, None]


HEADERS = ("softmax", "am", "aam")


class HeaderOutput(NamedTuple):
    """What a header makes of ``[B, D]``."""

    hidden: Tensor
    """``[B, H]`` behind the hidden layer; the input where there is none."""
    logits: Tensor
    """``[B, C]`` without margin, for predictions, accuracy and soft labels."""
    margin_logits: Tensor
    """``[B, C]`` for the loss; the same where the header has no margin."""


class ClassHeader(nn.Module):
    """Embedding to classes, perhaps through a hidden layer.

    Args:
        channels: D of the embedding.
        classes: C.
        kind: ``softmax`` (linear), ``am`` or ``aam`` (cosines times ``scale``, the true class handicapped).
        hidden: channels of a hidden layer with ReLU and dropout; 0 for none.
        dropout: behind the hidden layer.
        margin, scale: of ``am`` and ``aam``.
        margin_updates: updates during which the margin rises from 0.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        kind: str = "softmax",
        hidden: int = 0,
        dropout: float = 0.0,
        margin: float = 0.2,
        scale: float = 30.0,
        margin_updates: int = 0,
    ) -> None:
        super().__init__()
        if kind not in HEADERS:
            raise ValueError(f"header is {kind!r}; it must be one of {', '.join(HEADERS)}")
        if classes < 1:
            raise ValueError(f"a header of {classes} classes: give at least one (model.num_classes)")
        self.kind, self.margin, self.scale, self.margin_updates = kind, margin, scale, margin_updates
        self.updates = 0
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.output = nn.Linear(hidden or channels, classes, bias=kind == "softmax")

    def set_num_updates(self, num_updates: int) -> None:
        self.updates = num_updates

    @property
    def current_margin(self) -> float:
        return (
            self.margin * min(1.0, self.updates / self.margin_updates) if self.margin_updates else self.margin
        )

    def forward(self, x: Tensor, target: Tensor | None = None) -> HeaderOutput:
        """``x [B, D]``, ``target`` int64 ``[B]`` or None (no margin); targets below 0 have no margin."""
        hidden = self.hidden(x)
        if self.kind == "softmax":
            logits = self.output(hidden)
            return HeaderOutput(hidden, logits, logits)
        cosines = F.linear(
            F.normalize(hidden.float(), dim=-1), F.normalize(self.output.weight.float(), dim=-1)
        )
        logits = self.scale * cosines
        if target is None:
            return HeaderOutput(hidden, logits, logits)
        lowered = with_margin(cosines, self.current_margin, angular=self.kind == "aam")
        true = torch.arange(cosines.size(-1), device=x.device) == target[:, None]
        return HeaderOutput(hidden, logits, self.scale * torch.where(true, lowered, cosines))


def with_margin(cosines: Tensor, margin: float, angular: bool) -> Tensor:
    """What the cosine of the true class counts as: ``cos - m``, or ``cos(angle + m)``.

    Where ``angle + m`` passes 180 degrees, ``cos - m sin(pi - m)`` goes on monotonically.

    >>> import torch
    >>> with_margin(torch.tensor([1.0, 0.0, -1.0]), 0.2, angular=True).mul(1e4).round().tolist()
    [9800.0, -1987.0, -10397.0]
    """
    if not angular:
        return cosines - margin
    sines = (1 - cosines.square()).clamp(min=1e-7).sqrt()
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(
        cosines > math.cos(math.pi - margin), turned, cosines - margin * math.sin(math.pi - margin)
    )
