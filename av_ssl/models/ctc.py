"""Recognition with a linear CTC head on the pre-trained encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from av_ssl.data.text import BLANK
from av_ssl.models.av_encoder import Source
from av_ssl.models.pretrained import FineTunedEncoder, PretrainedEncoderConfig


@dataclass
class CTCConfig(PretrainedEncoderConfig):
    """No keys of its own."""


class CTCEncoder(FineTunedEncoder):
    """Encoder and projection to the dictionary. Tensors: ``w2v_model.*``, ``proj.*``."""

    def __init__(self, cfg: CTCConfig, classes: int, load_weights: bool) -> None:
        super().__init__(cfg, load_weights)
        self.proj = nn.Linear(self.output_dim, classes)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        teachers: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``[B, T, V]``, padded frames can only be blank; and what :meth:`distil` returns."""
        x = self.encode(source, padding_mask, frame_index)
        return blank_on_padding(self.proj(x), padding_mask), self.distil(x, source, teachers)


def blank_on_padding(logits: Tensor, padding_mask: Tensor) -> Tensor:
    """Logits ``[B, T, V]`` with all but the blank impossible on frames that ``padding_mask [B, T]`` marks.

    Impossible is the dtype's least finite value: scores of hypotheses are differences of these, and stay
    finite.
    """
    only_blank = torch.full_like(logits[0, 0], torch.finfo(logits.dtype).min)
    only_blank[BLANK] = 0
    return torch.where(padding_mask[..., None], only_blank, logits)


@register_model("av_hubert_ctc", dataclass=CTCConfig)
class CTCModel(BaseFairseqModel):
    """Train with fairseq's ``ctc`` criterion; ``fairseq-generate`` decodes it by CTC beam search."""

    def __init__(self, cfg: CTCConfig, classes: int, load_weights: bool) -> None:
        super().__init__()
        self.w2v_encoder = CTCEncoder(cfg, classes, load_weights)

    @classmethod
    def build_model(cls, cfg: CTCConfig, task: Any) -> "CTCModel":
        return cls(cfg, len(task.target_dictionary), load_weights=task.starts_from_pretrained)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        teachers: Mapping[str, Any] | None = None,
        **unused: Any,
    ) -> dict[str, Any]:
        """``encoder_out``: logits ``[T, B, V]``; ``padding_mask`` ``[B, T]``; and what ``distil`` adds."""
        logits, distilled = self.w2v_encoder(source, padding_mask, frame_index, teachers)
        return {"encoder_out": logits.transpose(0, 1), "padding_mask": padding_mask, **distilled}

    def get_normalized_probs(
        self, net_output: dict[str, Tensor], log_probs: bool, sample: dict[str, Any] | None = None
    ) -> Tensor:
        """(Log-)probabilities float32 ``[T, B, V]``."""
        logits = net_output["encoder_out"].float()
        return logits.log_softmax(-1) if log_probs else logits.softmax(-1)

    def max_positions(self) -> None:
        return None
