"""Audio front-end of the fused models: one linear layer on stacked log-mel filterbanks (Shi et al., 2022)."""

from __future__ import annotations

from torch import Tensor, nn


class AudioFrontend(nn.Module):
    """Stacked filterbanks at 25 Hz -> one feature vector a frame.

    ``encoder``, ``[B, T, C]`` -> ``[B, T, C]``, comes behind the projection if it is set.
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(input_dim, output_dim)
        self.encoder: nn.Module | None = None

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, input_dim, T]`` -> ``[B, T, C]``."""
        x = self.proj(audio.transpose(1, 2).to(self.proj.weight.dtype))
        return x if self.encoder is None else self.encoder(x)
