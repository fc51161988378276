"""RAVEn's encoder of one stream: raw audio or video -> features at 25 Hz.

RAVEn:  Haliassos et al., ICLR 2023 (arXiv 2212.06246), section 3.  BRAVEn (ICASSP 2024, arXiv 2404.02098) has
the same encoder: a ResNet-18 (1-D on the waveform, 2-D after a spatio-temporal stem on video) and a
Transformer with relative positions.  Tensor names are those of the published weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model
from omegaconf import II, MISSING
from torch import Tensor, nn

from av_ssl.compat.keys import option
from av_ssl.methods.encoder_model import EncoderModel, Source
from av_ssl.methods.pretrained import EncoderFamily
from av_ssl.modules.frontends import (
    FRAME_SAMPLES,
    VisualResNet,
    WaveformResNet,
    normalized,
    real_frames,
    unpacked,
    with_scaled_gradient,
)
from av_ssl.modules.masked_frames import gray_frames, mask_waveform
from av_ssl.modules.relative_transformer import FFN_NORMS, RelativeTransformer, RelativeTransformerSizes

MODALITIES = ("audio", "video")
ACTIVATION = "swish"


@dataclass
class RavenEncoderConfig(FairseqDataclass):
    """Size and regularisation of one encoder; the defaults are RAVEn Base's."""

    encoder_layers: int = option(12, "number of Transformer blocks")
    encoder_embed_dim: int = option(512, "channels D of the encoder")
    encoder_ffn_embed_dim: int = option(2048, "channels of the feed-forward blocks")
    encoder_attention_heads: int = option(8, "attention heads")
    dropout: float = option(0.1, "dropout of the Transformer's input and positions, in and after its blocks")
    attention_dropout: float = option(0.1, "dropout of attention weights")
    drop_path: float = option(0.0, "probability that a clip skips half a block (stochastic depth)")
    layer_scale: float = option(0.1, "initial factor of each block's output channels; 0: no such factors")
    ffn_norm: ChoiceEnum(FFN_NORMS) = option("batch", "norm before the feed-forward blocks")  # type: ignore[valid-type]
    resnet_width: int = option(64, "channels of the ResNet's first stage (RAVEn has 64; less is cheaper)")
    feature_grad_mult: float = option(1.0, "scale of the gradient into the front-end; 0 freezes it [ours]")
    image_mean: float = option(II("task.image_mean"), "mean of the grayscale values (0..1)")
    image_std: float = option(II("task.image_std"), "their standard deviation")
    compile: bool = option(False, "torch.compile the ResNet and the Transformer blocks (torch >= 2.2) [ours]")


@dataclass
class SingleRavenEncoderConfig(RavenEncoderConfig):
    """An encoder without a training objective, as published."""

    modality: ChoiceEnum(MODALITIES) = option(MISSING, "the stream that it encodes")  # type: ignore[valid-type]


@register_model("raven_encoder", dataclass=SingleRavenEncoderConfig)
class RavenEncoder(RelativeTransformer, EncoderModel):
    """Front-end, projection and Transformer of one stream, ``audio`` or ``video``.

    Tensors: ``frontend.*``, ``embed.0.*``, ``encoders.{block}.*``, ``after_norm.*``.
    """

    encoder_family: ClassVar[EncoderFamily]

    def __init__(self, cfg: RavenEncoderConfig, modality: str) -> None:
        sizes = RelativeTransformerSizes(
            layers=cfg.encoder_layers,
            channels=cfg.encoder_embed_dim,
            ffn_channels=cfg.encoder_ffn_embed_dim,
            heads=cfg.encoder_attention_heads,
            dropout=cfg.dropout,
            attention_dropout=cfg.attention_dropout,
            drop_path=cfg.drop_path,
            layer_scale=cfg.layer_scale or None,
            ffn_norm=str(cfg.ffn_norm),
        )
        super().__init__(sizes)
        if modality not in MODALITIES:
            raise ValueError(f"modality is {modality!r}; it must be one of {', '.join(MODALITIES)}")
        self.cfg = cfg
        self.modality = modality
        front_end: type[WaveformResNet | VisualResNet]
        front_end = WaveformResNet if modality == "audio" else VisualResNet
        self.frontend = front_end(cfg.resnet_width, ACTIVATION)
        self.embed = nn.Sequential(nn.Linear(8 * cfg.resnet_width, cfg.encoder_embed_dim))
        if cfg.compile:  # what is called with few distinct shapes; in place, so that tensor names stay
            for part in (self.frontend.trunk, *self.encoders):
                part.compile()

    @classmethod
    def build_model(cls, cfg: SingleRavenEncoderConfig, task: Any = None) -> "RavenEncoder":
        return cls(cfg, str(cfg.modality))

    def project(
        self,
        signal: Tensor,
        padding_mask: Tensor | None = None,
        frame_index: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Front-end and linear layer: ``[B, T, D]``; arguments as in :meth:`encode`."""
        frames = signal.size(-1) // FRAME_SAMPLES if self.modality == "audio" else signal.size(2)
        if padding_mask is not None and padding_mask.shape != (len(signal), frames):
            raise ValueError(
                f"{self.modality} of {frames} frames in {len(signal)} clips, but a padding_mask of shape "
                f"{tuple(padding_mask.shape)}"
            )
        x = with_scaled_gradient(
            lambda: self.front_end(signal, padding_mask, frame_index, mask), self.cfg.feature_grad_mult
        )
        return self.embed(x)

    def front_end(
        self, signal: Tensor, padding_mask: Tensor | None, frame_index: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        if self.modality == "audio":
            return self.frontend(signal if mask is None else mask_waveform(signal, mask), padding_mask)
        cfg = self.cfg
        video = normalized(signal, cfg.image_mean, cfg.image_std, self.after_norm.weight.dtype)
        if mask is not None:
            video = gray_frames(video, mask, cfg.image_mean)
        batch, _, frames = video.shape[:3]
        if frame_index is None:
            frame_index = real_frames(padding_mask, batch, frames, video.device)
        x = self.frontend(video.squeeze(1), frame_index, padding_mask)
        return unpacked(x, frame_index, batch, frames)

    def encode(
        self,
        signal: Tensor,
        padding_mask: Tensor | None = None,
        frame_index: Tensor | None = None,
        mask: Tensor | None = None,
        collect_blocks: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode a batch, for training objectives.

        Args:
            signal: audio ``[B, 640 * T]``, ``int16`` or float on the scale -1..1; or video
                ``[B, 1, T, H, W]``, ``uint8`` or normalised floats.
            padding_mask: bool ``[B, T]``, True on padding.
            frame_index: int64 ``[F]``, flat indices of real frames; not used for audio.
            mask: bool ``[B, T]``, True on masked frames: they become silence, or mean gray.

        Returns:
            ``[B, T, D]`` after ``after_norm``, and with ``collect_blocks`` that of each block.
        """
        x = self.project(signal, padding_mask, frame_index, mask)
        x, blocks = self.run_blocks(x, padding_mask, collect=collect_blocks)
        return self.after_norm(x), blocks

    # -- the encoder's interface -----------------------------------------------------------------------------

    def transformer_input(
        self, source: Source, padding_mask: Tensor | None, frame_index: Tensor | None = None
    ) -> Tensor:
        return self.project(self.signal(source), padding_mask, frame_index)

    def run_layers(
        self, x: Tensor, padding_mask: Tensor | None, last: int | None = None, collect: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        return self.run_blocks(x, padding_mask, last, collect)

    def final_norm(self, x: Tensor) -> Tensor:
        return self.after_norm(x)

    def layer_stack(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
        return list(self.encoders), [self.after_norm]

    @property
    def stream_choices(self) -> list[tuple[str, ...]]:
        return [(self.modality,)]

    def signal(self, source: Source) -> Tensor:
        signal = source.get(self.modality)
        if signal is None:
            raise ValueError(f"source has no {self.modality}, the one stream that this encoder takes")
        return signal


RavenEncoder.encoder_family = EncoderFamily(
    "RAVEn's encoder",
    RavenEncoderConfig,
    RavenEncoder,
    not_taken=("after_norm.",),  # as in the authors' program
    streams=MODALITIES,
)
