"""Task headers: softmax, additive margin (AM, Wang et al., 2018) and additive angular margin (AAM, ArcFace,
Deng et al., 2019)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
