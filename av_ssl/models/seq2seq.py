"""Recognition with an attention decoder: the pre-trained encoder under fairseq's Transformer decoder."""

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel, register_model
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from torch import Tensor, nn

from av_ssl.models.av_encoder import Source
from av_ssl.models.pretrained import FineTunedEncoder, PretrainedEncoderConfig


@dataclass
class Seq2SeqConfig(PretrainedEncoderConfig):
    """Decoder keys; names and defaults are AV-HuBERT's."""

    decoder_embed_dim: int = field(default=768, metadata={"help": "channels of the decoder"})
    decoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "channels of its feed-forward blocks"})
    decoder_layers: int = field(default=6, metadata={"help": "decoder layers"})
    decoder_layerdrop: float = field(
        default=0.0, metadata={"help": "probability of skipping a decoder layer"}
    )
    decoder_attention_heads: int = field(default=4, metadata={"help": "attention heads"})
    decoder_learned_pos: bool = field(
        default=False, metadata={"help": "learned instead of sinusoidal positions"}
    )
    decoder_normalize_before: bool = field(default=False, metadata={"help": "layer norm before each block"})
    no_token_positional_embeddings: bool = field(default=False, metadata={"help": "no positions"})
    decoder_dropout: float = field(default=0.0, metadata={"help": "dropout of the decoder"})
    decoder_attention_dropout: float = field(default=0.0, metadata={"help": "its attention dropout"})
    decoder_activation_dropout: float = field(default=0.0, metadata={"help": "its feed-forward dropout"})
    max_target_positions: int = field(default=2048, metadata={"help": "longest output, in tokens"})
    share_decoder_input_output_embed: bool = field(default=False, metadata={"help": "tie the two embeddings"})
    no_scale_embedding: bool = field(
        default=True, metadata={"help": "do not scale embeddings by sqrt(channels)"}
    )


class Seq2SeqEncoder(FineTunedEncoder):
    """The pre-trained encoder as fairseq's decoder and beam search ask for it. Tensors: ``w2v_model.*``."""

    def forward(
        self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None, **unused: Any
    ) -> dict[str, list[Tensor]]:
        """``encoder_out`` [T, B, C] and ``encoder_padding_mask`` [B, T], each in a list as fairseq has it."""
        x = self.encode(source, padding_mask, frame_index)
        return {"encoder_out": [x.transpose(0, 1)], "encoder_padding_mask": [padding_mask]}

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
        encoder = Seq2SeqEncoder(cfg, load_weights=task.starts_from_pretrained)
        decoder = Seq2SeqDecoder(cfg, task.target_dictionary, encoder.output_dim)
        return cls(encoder, decoder)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        prev_output_tokens: Tensor,
        frame_index: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``[B, L, V]`` for targets whose history is ``prev_output_tokens [B, L]``."""
        encoder_out = self.encoder(source, padding_mask, frame_index)
        return self.decoder(prev_output_tokens, encoder_out=encoder_out)

    def max_positions(self) -> None:
        return None
