"""Recognition models: a pre-trained encoder with an attention decoder, a CTC head, or both.

- ``av_hubert_seq2seq``: fairseq's Transformer decoder, as in AV-HuBERT;
- ``av_hubert_ctc``: a linear CTC head;
- ``hybrid_ctc_attention``: both heads on one encoder (Watanabe et al., 2017), as RAVEn is fine-tuned
  (Haliassos et al., 2023, arXiv 2212.06246).

Each takes any encoder that :class:`~av_ssl.recognition.encoder.FineTunedEncoder` reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.models import BaseFairseqModel, FairseqEncoderDecoderModel, register_model
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from torch import Tensor, nn

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.compat.keys import option
from av_ssl.layout import BLANK
from av_ssl.methods.encoder_model import Source
from av_ssl.recognition.encoder import FineTunedEncoder, PretrainedEncoderConfig

# -- attention -----------------------------------------------------------------------------------------------


@dataclass
class Seq2SeqConfig(PretrainedEncoderConfig):
    """Decoder keys; names and defaults are AV-HuBERT's."""

    decoder_embed_dim: int = option(768, "channels of the decoder")
    decoder_ffn_embed_dim: int = option(3072, "channels of its feed-forward blocks")
    decoder_layers: int = option(6, "decoder layers")
    decoder_layerdrop: float = option(0.0, "probability of skipping a decoder layer")
    decoder_attention_heads: int = option(4, "attention heads")
    decoder_learned_pos: bool = option(False, "learned instead of sinusoidal positions")
    decoder_normalize_before: bool = option(False, "layer norm before each block")
    no_token_positional_embeddings: bool = option(False, "no positions")
    decoder_dropout: float = option(0.0, "dropout of the decoder")
    decoder_attention_dropout: float = option(0.0, "its attention dropout")
    decoder_activation_dropout: float = option(0.0, "its feed-forward dropout")
    max_target_positions: int = option(2048, "longest output, in tokens")
    share_decoder_input_output_embed: bool = option(False, "tie the two embeddings")
    no_scale_embedding: bool = option(True, "do not scale embeddings by sqrt(channels)")


class Seq2SeqEncoder(FineTunedEncoder):
    """The pre-trained encoder with the interface of fairseq's decoder and beam search."""

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        teachers: Mapping[str, Any] | None = None,
        **unused: Any,
    ) -> dict[str, Any]:
        """``encoder_out`` [T, B, C] and ``encoder_padding_mask`` [B, T], each in a list as fairseq has it,
        and what :meth:`distil` adds."""
        x = self.encode(source, padding_mask, frame_index)
        return {
            "encoder_out": [x.transpose(0, 1)],
            "encoder_padding_mask": [padding_mask],
            **self.distil(x, source, teachers),
        }

    def reorder_encoder_out(
        self, encoder_out: dict[str, list[Tensor]], new_order: Tensor
    ) -> dict[str, list[Tensor]]:
        return {
            "encoder_out": [x.index_select(1, new_order) for x in encoder_out["encoder_out"]],
            "encoder_padding_mask": [
                x.index_select(0, new_order) for x in encoder_out["encoder_padding_mask"]
            ],
        }

    def max_positions(self) -> None:
        return None


class Seq2SeqDecoder(TransformerDecoderBase):
    """fairseq's decoder with AV-HuBERT's tensor names: no version tensor, a tied embedding stored once."""

    def __init__(self, cfg: Seq2SeqConfig, dictionary: Dictionary, encoder_dim: int) -> None:
        embed = nn.Embedding(len(dictionary), cfg.decoder_embed_dim, dictionary.pad())
        nn.init.normal_(embed.weight, 0.0, cfg.decoder_embed_dim**-0.5)
        nn.init.zeros_(embed.weight[dictionary.pad()])
        super().__init__(decoder_config(cfg, encoder_dim), dictionary, embed)
        del self.version
        unused = getattr(self.embed_positions, "_float_tensor", None)
        if unused is not None:  # fairseq leaves it uninitialised, so checkpoints of equal runs would differ
            unused.zero_()

    def build_output_projection(self, cfg: Any, dictionary: Dictionary, embed_tokens: nn.Embedding) -> None:
        if not self.share_input_output_embed:
            self.embed_out = nn.Parameter(
                embed_tokens.weight.new_empty(len(dictionary), self.output_embed_dim)
            )
            nn.init.normal_(self.embed_out, 0.0, self.output_embed_dim**-0.5)

    def output_layer(self, features: Tensor) -> Tensor:
        return F.linear(
            features, self.embed_tokens.weight if self.share_input_output_embed else self.embed_out
        )

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> dict[str, Any]:
        return state_dict


def decoder_config(cfg: Seq2SeqConfig, encoder_dim: int) -> TransformerConfig:
    """The decoder's keys in fairseq's own configuration.

    ``encoder.embed_dim`` must be given: cross-attention's keys and values would otherwise be 512 wide.
    """
    transformer = TransformerConfig()
    transformer.encoder = type(transformer.encoder)(embed_dim=encoder_dim)
    transformer.decoder = type(transformer.decoder)(
        embed_dim=cfg.decoder_embed_dim,
        ffn_embed_dim=cfg.decoder_ffn_embed_dim,
        layers=cfg.decoder_layers,
        layerdrop=cfg.decoder_layerdrop,
        attention_heads=cfg.decoder_attention_heads,
        normalize_before=cfg.decoder_normalize_before,
        learned_pos=cfg.decoder_learned_pos,
        input_dim=cfg.decoder_embed_dim,
        output_dim=cfg.decoder_embed_dim,
    )
    transformer.dropout = cfg.decoder_dropout
    transformer.attention_dropout = cfg.decoder_attention_dropout
    transformer.activation_dropout = cfg.decoder_activation_dropout
    transformer.max_target_positions = cfg.max_target_positions
    transformer.share_decoder_input_output_embed = cfg.share_decoder_input_output_embed
    transformer.no_token_positional_embeddings = cfg.no_token_positional_embeddings
    transformer.no_scale_embedding = cfg.no_scale_embedding
    return transformer


@register_model("av_hubert_seq2seq", dataclass=Seq2SeqConfig)
class Seq2SeqModel(FairseqEncoderDecoderModel):
    """Encoder and decoder; train with ``label_smoothed_cross_entropy``, decode by beam search."""

    @classmethod
    def build_model(cls, cfg: Seq2SeqConfig, task: Any) -> "Seq2SeqModel":
        encoder = Seq2SeqEncoder(cfg, task.pretrained)
        decoder = Seq2SeqDecoder(cfg, task.target_dictionary, encoder.output_dim)
        return cls(encoder, decoder)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        prev_output_tokens: Tensor,
        frame_index: Tensor | None = None,
        teachers: Mapping[str, Any] | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``[B, L, V]`` for targets whose history is ``prev_output_tokens [B, L]``, and a dict with
        ``encoder_out`` (what the encoder returned)."""
        encoder_out = self.encoder(source, padding_mask, frame_index, teachers)
        logits, extra = self.decoder(prev_output_tokens, encoder_out=encoder_out)
        return logits, {**extra, "encoder_out": encoder_out}

    def max_positions(self) -> None:
        return None


# -- CTC -----------------------------------------------------------------------------------------------------


@dataclass
class CTCConfig(PretrainedEncoderConfig):
    """No keys of its own."""


class CTCEncoder(FineTunedEncoder):
    """Encoder and projection to the dictionary. Tensors: ``w2v_model.*``, ``proj.*``."""

    def __init__(self, cfg: CTCConfig, classes: int, pretrained: StoredModel | None) -> None:
        super().__init__(cfg, pretrained)
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
    """Logits ``[B, T, V]`` with all but the blank impossible on the frames of ``padding_mask [B, T]``.

    Impossible is the dtype's smallest finite value, so that differences of scores stay finite.
    """
    only_blank = torch.full_like(logits[0, 0], torch.finfo(logits.dtype).min)
    only_blank[BLANK] = 0
    return torch.where(padding_mask[..., None], only_blank, logits)


@register_model("av_hubert_ctc", dataclass=CTCConfig)
class CTCModel(BaseFairseqModel):
    """Train with fairseq's ``ctc`` criterion; ``fairseq-generate`` decodes it by CTC beam search."""

    def __init__(self, cfg: CTCConfig, classes: int, pretrained: StoredModel | None) -> None:
        super().__init__()
        self.w2v_encoder = CTCEncoder(cfg, classes, pretrained)

    @classmethod
    def build_model(cls, cfg: CTCConfig, task: Any) -> "CTCModel":
        return cls(cfg, len(task.target_dictionary), task.pretrained)

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


# -- both ----------------------------------------------------------------------------------------------------


@dataclass
class HybridConfig(Seq2SeqConfig):
    """Keys of both heads; the defaults are RAVEn's decoder in fairseq's terms: layer norm before each block,
    embeddings scaled by sqrt(channels), output not tied to them."""

    decoder_normalize_before: bool = option(True, "layer norm before each block")
    no_scale_embedding: bool = option(False, "do not scale embeddings by sqrt(channels)")
    decoder_dropout: float = option(0.1, "dropout of the decoder")
    decoder_attention_dropout: float = option(0.1, "its attention dropout")
    ctc_dropout: float = option(0.1, "dropout of the CTC head's input")


class CTCHead(nn.Module):
    """Dropout and a linear layer from the encoder's channels to the dictionary. Tensors: ``proj.*``."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(channels, classes)

    def forward(self, encoder_out: dict[str, list[Tensor]]) -> Tensor:
        """Logits ``[B, T, V]`` for :class:`Seq2SeqEncoder`'s output; padded frames can only be blank."""
        logits = self.proj(self.dropout(encoder_out["encoder_out"][0].transpose(0, 1)))
        return blank_on_padding(logits, encoder_out["encoder_padding_mask"][0])


@register_model("hybrid_ctc_attention", dataclass=HybridConfig)
class HybridModel(Seq2SeqModel):
    """Train with ``hybrid_ctc_attention``; ``fairseq-generate`` decodes it by joint search."""

    def __init__(self, encoder: Seq2SeqEncoder, decoder: Seq2SeqDecoder, ctc: CTCHead) -> None:
        super().__init__(encoder, decoder)
        self.ctc = ctc

    @classmethod
    def build_model(cls, cfg: HybridConfig, task: Any) -> "HybridModel":
        encoder = Seq2SeqEncoder(cfg, task.pretrained)
        decoder = Seq2SeqDecoder(cfg, task.target_dictionary, encoder.output_dim)
        return cls(
            encoder, decoder, CTCHead(encoder.output_dim, len(task.target_dictionary), cfg.ctc_dropout)
        )

    def forward(self, *args: Any, **net_input: Any) -> tuple[Tensor, dict[str, Any]]:
        """As :class:`Seq2SeqModel`; the dict also holds ``ctc_logits [B, T, V]``, from the same pass."""
        logits, extra = super().forward(*args, **net_input)
        return logits, {**extra, "ctc_logits": self.ctc(extra["encoder_out"])}

    def ctc_log_probs(self, encoder_out: dict[str, list[Tensor]]) -> Tensor:
        """Log-probabilities float32 ``[B, T, V]`` of the CTC head for the encoder's output.

        The blank is index 0, ``<s>``; on padded frames its log-probability is 0.
        """
        return self.ctc(encoder_out).float().log_softmax(-1)
