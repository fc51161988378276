"""Layers of classifiers: pooling over time, the classification head, and cutting a batch into segments."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.layout import SAMPLES_PER_FRAME

VARIANCE_FLOOR = 1e-5  # under the square root, whose gradient is unbounded at 0, the variance of one vector


class MeanPooling(nn.Module):
    """Mean over the real vectors of a sequence."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output_dim = channels

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool ``x [B, N, C]``, ``padding_mask`` bool ``[B, N]``, to ``[B, C]``."""
        real = (~padding_mask).float()
        weights = real / real.sum(1, keepdim=True).clamp(min=1)
        return torch.einsum("bnc,bn->bc", x.float(), weights).to(x.dtype)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation; a small network computes the weights (Okabe et al., 2018)."""

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.output_dim = 2 * channels
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool ``x [B, N, C]``, ``padding_mask`` bool ``[B, N]``, to ``[B, 2 C]``."""
        scores = self.score(torch.tanh(self.hidden(x))).squeeze(-1).float()
        # Not minus infinity: softmax would return NaN for a sequence of padding alone.
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(padding_mask, lowest).softmax(dim=1) * ~padding_mask
        mean = torch.einsum("bnc,bn->bc", x.float(), weights)
        variance = torch.einsum("bnc,bn->bc", (x.float() - mean[:, None]).square(), weights)
        return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=-1).to(x.dtype)


POOLINGS = {"mean": MeanPooling, "asp": AttentiveStatisticsPooling}


class HeadOutput(NamedTuple):
    """Outputs of a classification head for ``[B, D]``."""

    hidden: Tensor
    """``[B, H]``, output of the hidden layer; the head's input if it has none."""
    logits: Tensor
    """``[B, C]`` without margin: for predictions, accuracy and soft labels."""
    margin_logits: Tensor
    """``[B, C]`` for the loss; equal to ``logits`` if the head has no margin."""


class ClassHead(nn.Module):
    """Embedding to classes, optionally through a hidden layer.

    Args:
        channels, classes: D of the embedding, C.
        kind: ``softmax`` (a linear layer), or ``aam``: cosines times ``scale``, with an additive angular
            margin for the true class (ArcFace, Deng et al., 2019).
        hidden, dropout: channels of a hidden layer with ReLU (0 for none), and the dropout after it.
        margin, scale: of ``aam``; the margin in radians.
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
        if classes < 1:
            raise ValueError(f"model.num_classes={classes}: a head needs at least one class; set task.label")
        self.angular = kind == "aam"
        self.margin, self.scale, self.margin_updates = margin, scale, margin_updates
        self.updates = 0
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.output = nn.Linear(hidden or channels, classes, bias=not self.angular)

    def set_num_updates(self, num_updates: int) -> None:
        self.updates = num_updates

    @property
    def current_margin(self) -> float:
        risen = min(1.0, self.updates / self.margin_updates) if self.margin_updates else 1.0
        return self.margin * risen

    def forward(self, x: Tensor, target: Tensor | None = None) -> HeadOutput:
        """Classify ``x [B, D]``; no margin without ``target`` (int64 ``[B]``) or where it is negative."""
        hidden = self.hidden(x)
        if not self.angular:
            logits = self.output(hidden)
            return HeadOutput(hidden, logits, logits)
        weight = F.normalize(self.output.weight.float(), dim=-1)
        cosines = F.linear(F.normalize(hidden.float(), dim=-1), weight)
        logits = self.scale * cosines
        if target is None:
            return HeadOutput(hidden, logits, logits)
        lowered = with_angular_margin(cosines, self.current_margin)
        true = torch.arange(cosines.size(-1), device=x.device) == target[:, None]
        return HeadOutput(hidden, logits, self.scale * torch.where(true, lowered, cosines))


def with_angular_margin(cosines: Tensor, margin: float) -> Tensor:
    """``cos(angle + margin)``; where the sum passes 180 degrees ``cos - margin sin(pi - margin)``, which
    keeps the function monotone.

    >>> import torch
    >>> with_angular_margin(torch.tensor([1.0, 0.0, -1.0]), 0.2).mul(1e4).round().tolist()
    [9800.0, -1987.0, -10397.0]
    """
    sines = (1 - cosines.square()).clamp(min=1e-7).sqrt()
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    beyond = cosines - margin * math.sin(math.pi - margin)
    return torch.where(cosines > math.cos(math.pi - margin), turned, beyond)


def cut_audio(audio: Tensor, frames: Tensor, padding_mask: Tensor) -> Tensor:
    """Cut segments out of a batch of audio.

    Args:
        audio: filterbanks ``[B, C, T]`` or waveforms ``[B, 640 T]``.
        frames: int64 ``[N, L]``, flat indices b*T+t.
        padding_mask: bool ``[N, L]``, True on frames to be zeroed.

    Returns:
        ``[N, C, L]``, or ``[N, 640 L]``.
    """
    real = ~padding_mask[..., None]
    if audio.dim() == 2:
        return (audio.reshape(-1, SAMPLES_PER_FRAME)[frames] * real).flatten(1)
    return (audio.transpose(1, 2).flatten(0, 1)[frames] * real).transpose(1, 2)


def cut_video(video: Tensor, frames: Tensor) -> Tensor:
    """Cut ``[N, 1, L, H, W]`` out of ``[B, 1, T, H, W]``; front-ends skip padded frames themselves."""
    return video.flatten(0, 2)[frames][:, None]
