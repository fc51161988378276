"""Recognition with a CTC head and an attention decoder on one pre-trained encoder (Watanabe et al., 2017).

RAVEn is fine-tuned so (Haliassos et al., 2023, arXiv 2212.06246); any encoder that
:class:`~av_ssl.models.pretrained.FineTunedEncoder` reads can be.
"""

from dataclasses import dataclass, field
from typing import Any

from fairseq.models import FairseqEncoderDecoderModel, register_model
from torch import Tensor, nn

from av_ssl.models.av_encoder import Source
from av_ssl.models.ctc import blank_on_padding
from av_ssl.models.seq2seq import Seq2SeqConfig, Seq2SeqDecoder, Seq2SeqEncoder


@dataclass
class HybridConfig(Seq2SeqConfig):
    """Keys of both heads; the defaults are RAVEn's decoder in fairseq's terms: layer norm before each block,
    embeddings scaled by sqrt(channels), output not tied to them."""

    decoder_normalize_before: bool = field(default=True, metadata={"help": "layer norm before each block"})
    no_scale_embedding: bool = field(
        default=False, metadata={"help": "do not scale embeddings by sqrt(channels)"}
    )
    decoder_dropout: float = field(default=0.1, metadata={"help": "dropout of the decoder"})
    decoder_attention_dropout: float = field(default=0.1, metadata={"help": "its attention dropout"})
    ctc_dropout: float = field(default=0.1, metadata={"help": "dropout of the CTC head's input"})


class CTCHead(nn.Module):
    """Dropout and a linear layer from the encoder's channels to the dictionary. Tensors: ``proj.*``."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(channels, classes)

    def forward(self, encoder_out: dict[str, list[Tensor]]) -> Tensor:
        """Logits ``[B, T, V]`` of what :class:`Seq2SeqEncoder` returns; padded frames can only be blank."""
        logits = self.proj(self.dropout(encoder_out["encoder_out"][0].transpose(0, 1)))
        return blank_on_padding(logits, encoder_out["encoder_padding_mask"][0])


@register_model("hybrid_ctc_attention", dataclass=HybridConfig)
class HybridModel(FairseqEncoderDecoderModel):
    """Train with ``hybrid_ctc_attention``.

    ``fairseq-generate`` decodes it by joint search, see :mod:`av_ssl.decoding.joint`, which asks for
    :meth:`ctc_log_probs`.
    """

    def __init__(self, encoder: Seq2SeqEncoder, decoder: Seq2SeqDecoder, ctc: CTCHead) -> None:
        super().__init__(encoder, decoder)
        self.ctc = ctc

    @classmethod
    def build_model(cls, cfg: HybridConfig, task: Any) -> "HybridModel":
        encoder = Seq2SeqEncoder(cfg, load_weights=task.starts_from_pretrained)
        decoder = Seq2SeqDecoder(cfg, task.target_dictionary, encoder.output_dim)
        return cls(
            encoder, decoder, CTCHead(encoder.output_dim, len(task.target_dictionary), cfg.ctc_dropout)
        )

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        prev_output_tokens: Tensor,
        frame_index: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Run the encoder once and both heads on it.

        Returns:
            The decoder's logits ``[B, L, V]`` for targets whose history is ``prev_output_tokens [B, L]``, and
            a dict with ``ctc_logits [B, T, V]`` and ``encoder_out`` (what the encoder returned).
        """
        encoder_out = self.encoder(source, padding_mask, frame_index)
        logits, extra = self.decoder(prev_output_tokens, encoder_out=encoder_out)
        return logits, {**extra, "encoder_out": encoder_out, "ctc_logits": self.ctc(encoder_out)}

    def ctc_log_probs(self, encoder_out: dict[str, list[Tensor]]) -> Tensor:
        """Log-probabilities float32 ``[B, T, V]`` of the CTC head for what ``model.encoder`` returned.

        The blank is index 0, ``<s>``; on padded frames its log-probability is 0.
        """
        return self.ctc(encoder_out).float().log_softmax(-1)

    def max_positions(self) -> None:
        return None
