"""The interface of every encoder: the features of a batch, from any of its layers."""

from collections.abc import Sequence
from typing import Any

from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

Source = dict[str, Tensor | None]
"""``audio``, filterbanks float ``[B, 104, T]`` or a waveform ``[B, 640 * T]``, and ``video`` uint8 or float
``[B, 1, T, H, W]``; either may be None."""


class EncoderModel(BaseFairseqModel):
    """An encoder with a Transformer; sub-classes implement the first five members."""

    cfg: Any

    def transformer_input(
        self, source: Source, padding_mask: Tensor | None, frame_index: Tensor | None = None
    ) -> Tensor:
        """The Transformer's input ("layer 0"): ``[B, T, C]``."""
        raise NotImplementedError

    def run_layers(
        self, x: Tensor, padding_mask: Tensor | None, last: int | None = None, collect: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The residual stream ``[B, T, C]`` after layer ``last`` (1-based; None: all), before the final norm;
        with ``collect``, also that after every layer."""
        raise NotImplementedError

    def final_norm(self, x: Tensor) -> Tensor:
        """The encoder's output for the residual stream after the last layer."""
        raise NotImplementedError

    def layer_stack(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
        """The Transformer's layers, first to last, and what follows them, for learning rates by layer."""
        raise NotImplementedError

    @property
    def stream_choices(self) -> list[tuple[str, ...]]:
        """Sets of streams that the encoder accepts."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Layers of the Transformer."""
        return len(self.layer_stack()[0])

    @property
    def output_dim(self) -> int:
        """Channels C."""
        return int(self.cfg.encoder_embed_dim)

    def extract_features(
        self,
        source: Source,
        padding_mask: Tensor | None = None,
        mask: bool = False,
        ret_conv: bool = False,
        output_layer: int | None = None,
        frame_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encode a batch.

        Args:
            source: see :data:`Source`; in a fused encoder, an absent stream counts as zeros after its
                front-end.
            padding_mask: bool ``[B, T]``, True on padding.
            mask: mask spans of the input, see :meth:`masked_source`.
            ret_conv: return the Transformer's input ("layer 0").
            output_layer: 1-based; return that layer's residual stream, **without** the final layer norm.
            frame_index: int64 ``[F]``, see :class:`~av_ssl.modules.frontends.VideoFrontend`.

        Returns:
            ``[B, T, C]`` and ``padding_mask``.

        Raises:
            ValueError: there is no such layer, or nothing to encode, or this model has no masks.
        """
        if mask:
            source = self.masked_source(source, padding_mask)
        x = self.transformer_input(source, padding_mask, frame_index)
        return x if ret_conv else self.run_transformer(x, padding_mask, output_layer), padding_mask

    extract_finetune = extract_features
    """AV-HuBERT's name for it."""

    def run_transformer(self, x: Tensor, padding_mask: Tensor | None, output_layer: int | None) -> Tensor:
        """The Transformer's input to its output, ``[B, T, C]`` both; see :meth:`extract_features`."""
        if output_layer is not None and not 1 <= output_layer <= self.depth:
            raise ValueError(f"output_layer is {output_layer}; this model has layers 1 to {self.depth}")
        x, _ = self.run_layers(x, padding_mask, last=output_layer)
        return self.final_norm(x) if output_layer is None else x

    def masked_source(self, source: Source, padding_mask: Tensor | None) -> Source:
        raise ValueError(
            "mask=True: this encoder has no masks, only pre-trained fused models have; load the pre-trained "
            "checkpoint, or leave mask out"
        )

    def hidden_states(
        self, source: Source, padding_mask: Tensor | None = None, last: int | None = None
    ) -> list[Tensor]:
        """The outputs of all layers up to ``last`` (1-based) for a batch, in one pass; for eval mode.

        Returns:
            ``[B, T, C]`` each: item 0 the Transformer's input, item l the residual stream after layer l,
            **without** the final layer norm.
        """
        x = self.transformer_input(source, padding_mask)
        return [x, *self.run_layers(x, padding_mask, last=last, collect=True)[1]]
