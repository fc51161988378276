"""RAVEn's predictor: from a student's features to a teacher's (Haliassos et al., 2023, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from av_ssl.modules.masking import replace_frames
from av_ssl.modules.relative_transformer import RelativeTransformer, RelativeTransformerSizes

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
        # The vector is in the graph even where nothing is masked: distributed training wants its gradient.
        return x + 0 * self.mask_emb if mask is None else replace_frames(x, mask, self.mask_emb)


class Predictor(RelativeTransformer):
    """A narrow Transformer on a student's output; what the student gives at masked frames is left out.

    So a masked frame is predicted from the frames around it alone.

    Args:
        dim_in: channels of the student.
        dim_out: channels of the teacher.
        width: channels of the predictor, which do not grow with the encoder in RAVEn.
        ffn: channels of its feed-forward blocks.
        layers: 2 in RAVEn.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        width: int = 512,
        heads: int = 8,
        ffn: int = 2048,
        layers: int = 2,
        dropout: float = 0.1,
        ffn_norm: str = "batch",
    ) -> None:
        sizes = RelativeTransformerSizes(
            layers=layers,
            channels=width,
            ffn_channels=ffn,
            heads=heads,
            dropout=dropout,
            attention_dropout=dropout,
            layer_scale=None,
            ffn_norm=ffn_norm,
        )
        super().__init__(sizes)
        self.embed = MaskedProjection(dim_in, width)
        self.last_linear = nn.Linear(width, dim_out)

    def forward(self, x: Tensor, mask: Tensor | None = None, padding_mask: Tensor | None = None) -> Tensor:
        """Predict every frame.

        Args:
            x: the student's output ``[B, T, dim_in]``.
            mask: bool ``[B, T]``, True where the student's input was masked; None: nowhere.
            padding_mask: bool ``[B, T]``, True on padding.

        Returns:
            ``[B, T, dim_out]``.
        """
        x, _ = self.run_blocks(self.embed(x, mask), padding_mask)
        return self.last_linear(self.after_norm(x))
