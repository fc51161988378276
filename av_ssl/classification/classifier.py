"""From the frames of a clip, or of a segment of it, to one embedding.

Classifier of whole clips: encoder -> aggregator -> header.

The teachers of LUPI (Hajavi and Etemad, arXiv 2302.02845), and its audio-only baseline.  What of them the
paper's abstract says is the three parts, and that the aggregator is there in the sequential setting alone;
everything else is [ours].
"""

from dataclasses import dataclass, field
from typing import Any, List, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.classification.layers import HEADERS, POOLINGS, ClassHeader, cut_audio, cut_video, make_pooling
from av_ssl.data.classes import SegmentBatch
from av_ssl.data.clip_reader import STREAMS
from av_ssl.errors import DataError
from av_ssl.layout import SAMPLES_PER_FRAME
from av_ssl.methods.fused_encoder import Source
from av_ssl.modules.frontends import VideoFrontend
from av_ssl.modules.spectrogram_frontend import FILTERBANK_BANDS, RowBatchNorm, SpectrogramResNet
from av_ssl.recognition.encoder import FineTunedEncoder, PretrainedEncoderConfig


@dataclass
class ClipEncoderConfig(PretrainedEncoderConfig):
    """The encoder f: a pre-trained one (``w2v_path``), or front-ends trained from scratch.  All [ours]."""

    streams: str = field(
        default=II("task.modalities"),
        metadata={"help": "what the encoder takes, and has front-ends for: audio, video or av"},
    )
    audio_input: str = field(
        default=II("task.audio_input"), metadata={"help": "filterbank or waveform, as the data has it"}
    )
    segment_frames: int = field(
        default=II("task.segment_frames"),
        metadata={"help": "frames of a segment: with an aggregator behind the encoder; 0: none"},
    )
    frontend_dim: int = field(
        default=256, metadata={"help": "without w2v_path: channels of each front-end's features"}
    )
    audio_width: int = field(
        default=16, metadata={"help": "without w2v_path: channels of the spectrogram ResNet's first stage"}
    )
    audio_blocks: List[int] = field(
        default_factory=lambda: [3, 4, 6, 3],
        metadata={"help": "without w2v_path: residual blocks of its four stages"},
    )
    mel_bands: int = field(
        default=80, metadata={"help": "without w2v_path: mel bands of waveforms (filterbanks have 26)"}
    )
    subtract_mean: bool = field(
        default=True,
        metadata={"help": "without w2v_path: subtract each mel band's mean over the clip, loudness included"},
    )
    video_width: int = field(
        default=64, metadata={"help": "without w2v_path: channels of the visual ResNet's first stage"}
    )
    image_mean: float = field(
        default=II("task.image_mean"), metadata={"help": "mean of the grey values (0..1)"}
    )
    image_std: float = field(default=II("task.image_std"), metadata={"help": "their standard deviation"})
    frame_pooling: ChoiceEnum(POOLINGS) = field(  # type: ignore[valid-type]
        default="mean", metadata={"help": "how the frames of a clip or segment become one vector"}
    )
    embed_dim: int = field(
        default=256, metadata={"help": "channels of the embedding, behind a linear layer and batch norm"}
    )


class FrontEnds(nn.Module):
    """Front-ends from scratch: a thin ResNet over the spectrogram, AV-HuBERT's over the video.

    Tensors: ``audio.*``, ``video.*`` and, with both, ``fusion.*``.
    """

    output_dim: int
    depth = 0
    """Layers of a Transformer: it has none."""

    def __init__(self, cfg: ClipEncoderConfig, streams: tuple[str, ...]) -> None:
        super().__init__()
        channels = self.output_dim = cfg.frontend_dim
        self.stream_choices = [streams]
        self.audio: Optional[nn.Module] = None
        self.video: Optional[nn.Module] = None
        if "audio" in streams:
            bands = FILTERBANK_BANDS if str(cfg.audio_input) == "filterbank" else cfg.mel_bands
            self.audio = SpectrogramResNet(
                channels, bands, cfg.audio_width, list(cfg.audio_blocks), cfg.subtract_mean
            )
        if "video" in streams:
            self.video = VideoFrontend(channels, cfg.video_width, mean=cfg.image_mean, std=cfg.image_std)
        self.fusion: nn.Module = nn.Identity()
        if len(streams) == 2:
            self.fusion = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU())

    def encode(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """``[B, T, C]``."""
        features = []
        if self.audio is not None:
            features.append(self.audio(source["audio"], padding_mask))
        if self.video is not None:
            features.append(self.video(source["video"], padding_mask, frame_index))
        return self.fusion(torch.cat(features, dim=-1))

    def hidden_states(
        self, source: Source, padding_mask: Tensor | None = None, last: int | None = None
    ) -> list[Tensor]:
        """``[B, T, C]``, the one item: there is no Transformer; for eval mode."""
        present = next(value for value in source.values() if value is not None)
        if padding_mask is None:
            padding_mask = present.new_zeros(len(present), frames_of(source), dtype=torch.bool)
        return [self.encode(source, padding_mask)]


def frames_of(source: Source) -> int:
    """T of a batch; that of the video where it is there."""
    video, audio = source.get("video"), source.get("audio")
    if video is not None:
        return video.size(2)
    assert audio is not None
    return audio.size(2) if audio.dim() == 3 else audio.size(1) // SAMPLES_PER_FRAME


def pretrained_backbone(
    cfg: ClipEncoderConfig, streams: tuple[str, ...], pretrained: StoredModel | None
) -> FineTunedEncoder:
    """A pre-trained encoder without the front-ends of streams that it will not get."""
    backbone = FineTunedEncoder(cfg, pretrained)
    for stream in {"audio", "video"} - set(streams):
        if hasattr(backbone.w2v_model, f"feature_extractor_{stream}"):
            setattr(backbone.w2v_model, f"feature_extractor_{stream}", None)
    return backbone


class ClipEncoder(nn.Module):
    """The encoder f: frames, pooled over time, to an embedding; a bottleneck of one width for all encoders,
    so that those of teacher and student can be compared.

    Args:
        cfg: ``w2v_args`` (filled in from ``w2v_path``) says whether the encoder is a pre-trained one.
        pretrained: the checkpoint that training starts from, if there is one.

    Raises:
        ValueError: ``streams`` is unknown.
    """

    def __init__(self, cfg: ClipEncoderConfig, pretrained: StoredModel | None) -> None:
        super().__init__()
        if str(cfg.streams) not in STREAMS:
            raise ValueError(f"model.streams is {cfg.streams}; it must be one of {', '.join(STREAMS)}")
        self.streams = STREAMS[str(cfg.streams)]
        self.backbone: FrontEnds | FineTunedEncoder
        if cfg.w2v_args is None:
            self.backbone = FrontEnds(cfg, self.streams)
        else:
            self.backbone = pretrained_backbone(cfg, self.streams, pretrained)
        self.pooling = make_pooling(str(cfg.frame_pooling), self.backbone.output_dim)
        self.bottleneck = nn.Linear(self.pooling.output_dim, cfg.embed_dim)
        self.norm = RowBatchNorm(cfg.embed_dim)

    def forward(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Embed B clips (or segments).

        Args:
            source: ``audio`` and ``video`` (see :data:`~av_ssl.methods.fused_encoder.Source`); a stream that the
                encoder does not take is not looked at.
            padding_mask: bool ``[B, T]``, True on padding.
            frame_index: int64 ``[F]``, flat indices of the real frames.

        Returns:
            ``[B, D]``.

        Raises:
            ValueError: a stream is missing.
        """
        wanted: Source = {stream: source.get(stream) for stream in self.streams}
        missing = [stream for stream, value in wanted.items() if value is None]
        if missing:
            raise ValueError(
                f"this encoder takes {' and '.join(self.streams)}, but the batch has no "
                f"{' and no '.join(missing)}: set task.modalities"
            )
        frames = self.backbone.encode(wanted, padding_mask, frame_index)
        return self.norm(self.bottleneck(self.pooling(frames, padding_mask)))


EMBEDDING_LAYERS = ("auto", "encoder", "aggregator", "header")


@dataclass
class ClassifierConfig(ClipEncoderConfig):
    """Aggregator g and header h.  All [ours]."""

    aggregator: ChoiceEnum(POOLINGS) = field(  # type: ignore[valid-type]
        default="asp", metadata={"help": "how segments become one vector; in effect with segment_frames"}
    )
    aggregate_dim: int = field(
        default=256,
        metadata={"help": "channels of the aggregated embedding, behind a linear layer and batch norm"},
    )
    header: ChoiceEnum(HEADERS) = field(  # type: ignore[valid-type]
        default="softmax",
        metadata={"help": "softmax, or additive (am) or additive angular (aam) margin between classes"},
    )
    header_hidden: int = field(default=0, metadata={"help": "channels of the header's hidden layer; 0: none"})
    header_dropout: float = field(default=0.0, metadata={"help": "dropout behind it"})
    margin: float = field(default=0.2, metadata={"help": "of am (in cosines) and aam (in radians)"})
    scale: float = field(default=30.0, metadata={"help": "factor of the cosines of am and aam"})
    margin_updates: int = field(default=0, metadata={"help": "updates during which the margin rises from 0"})
    num_classes: int = field(
        default=0, metadata={"help": "filled in by the task from its list of classes; not for you to set"}
    )


class Aggregator(nn.Module):
    """The aggregator g: embeddings of segments to one of the clip."""

    def __init__(self, pooling: str, channels: int, output_dim: int) -> None:
        super().__init__()
        self.pooling = make_pooling(pooling, channels)
        self.proj = nn.Linear(self.pooling.output_dim, output_dim)
        self.norm = RowBatchNorm(output_dim)

    def forward(self, segments: Tensor, empty: Tensor) -> Tensor:
        """``segments [B, K, D]``, ``empty`` bool ``[B, K]`` -> ``[B, Z]``."""
        return self.norm(self.proj(self.pooling(segments, empty)))


@register_model("av_classifier", dataclass=ClassifierConfig)
class AVClassifier(BaseFairseqModel):
    """Classifier of clips from audio, video or both.  Tensors: ``encoder.*``, ``aggregator.*``, ``header.*``.

    Without segments a clip counts as a single one, and its embedding goes straight to the header.

    Args:
        cfg: see :class:`ClassifierConfig`.
        pretrained: the checkpoint that training starts from, if there is one.
        with_header: False for training by embeddings alone.
    """

    def __init__(
        self, cfg: ClassifierConfig, pretrained: StoredModel | None, with_header: bool = True
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = ClipEncoder(cfg, pretrained)
        self.aggregator: Aggregator | None = None
        if cfg.segment_frames > 0:
            self.aggregator = Aggregator(str(cfg.aggregator), cfg.embed_dim, cfg.aggregate_dim)
        self.header: ClassHeader | None = None
        if with_header:
            self.header = ClassHeader(
                cfg.aggregate_dim if self.aggregator is not None else cfg.embed_dim,
                cfg.num_classes,
                str(cfg.header),
                cfg.header_hidden,
                cfg.header_dropout,
                cfg.margin,
                cfg.scale,
                cfg.margin_updates,
            )

    @classmethod
    def build_model(cls, cfg: ClassifierConfig, task: Any) -> "AVClassifier":
        return cls(cfg, task.pretrained)

    # -- the three parts -------------------------------------------------------------------------------------

    def embed_segments(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode every segment of every clip by itself: ``[B, K, D]``, zero where bool ``[B, K]`` is True.

        Raises:
            ValueError: the data has segments and the model is none for them, or the other way round.
        """
        if (segments is None) != (self.aggregator is None):
            raise ValueError(
                f"this model was built for segments of {self.cfg.segment_frames} frames (0: whole clips), "
                f"the batch has {'no' if segments is None else 'some'}: set task.segment_frames alike"
            )
        if segments is None:
            embedding = self.encoder(source, padding_mask, frame_index)
            return embedding[:, None], padding_mask.new_zeros(len(embedding), 1)
        frames, padded, empty = segments["frames"], segments["padding_mask"], segments["empty"]
        cut: Source = {}
        for stream in self.encoder.streams:
            whole = source.get(stream)
            if whole is not None:
                cut[stream] = (
                    cut_audio(whole, frames, padded) if stream == "audio" else cut_video(whole, frames)
                )
        embedding = self.encoder(cut, padded, segments["frame_index"])
        spread = embedding.new_zeros(empty.numel(), embedding.size(-1))
        spread = spread.index_copy(0, segments["slots"], embedding)
        return spread.view(*empty.shape, -1), empty

    def aggregate(self, embeddings: Tensor, empty: Tensor) -> Tensor:
        """``[B, K, D]`` -> what the header gets, ``[B, Z]`` (``[B, D]`` without aggregator)."""
        return embeddings[:, 0] if self.aggregator is None else self.aggregator(embeddings, empty)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Classify a batch.

        Args:
            source, padding_mask, frame_index, segments: what the data pipeline gives.
            target: int64 ``[B]``, for headers with a margin; -1 where the class is unknown.

        Returns:
            ``enc [B, K, D]`` with ``empty`` bool ``[B, K]``; ``agg [B, Z]`` if there is an aggregator;
            ``hidden``, ``logits`` and ``margin_logits`` of the header (see
            :class:`~av_ssl.classification.layers.HeaderOutput`).
        """
        embeddings, empty = self.embed_segments(source, padding_mask, frame_index, segments)
        clip = self.aggregate(self.to_aggregator(embeddings), empty)
        output = {"enc": embeddings, "empty": empty}
        if self.aggregator is not None:
            output["agg"] = clip
        if self.header is not None:
            output.update(self.header(self.to_header(clip), target)._asdict())
        return output

    def to_aggregator(self, embeddings: Tensor) -> Tensor:
        """What sub-classes let through to the encoder on the way back."""
        return embeddings

    def to_header(self, clip: Tensor) -> Tensor:
        """Likewise, in front of the header."""
        return clip

    # -- what scoring calls ----------------------------------------------------------------------------------

    @torch.no_grad()
    def embed(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
        layer: str = "auto",
    ) -> Tensor:
        """Embeddings float32 ``[B, D]`` by which clips are compared.

        Args:
            source, padding_mask, frame_index, segments: what the data pipeline gives.
            layer: ``encoder`` (mean over segments), ``aggregator``, or ``header`` (its hidden layer);
                ``auto``: the aggregator's if there is one, else the encoder's.

        Raises:
            DataError: the model has no such layer.
        """
        embeddings, empty = self.embed_segments(source, padding_mask, frame_index, segments)
        if layer == "encoder" or (layer == "auto" and self.aggregator is None):
            return embeddings.float().sum(1) / (~empty).sum(1, keepdim=True)
        if layer in ("auto", "aggregator") and self.aggregator is not None:
            return self.aggregator(embeddings, empty).float()
        if layer == "header" and self.header is not None and self.cfg.header_hidden:
            return self.header.hidden(self.aggregate(embeddings, empty)).float()
        raise DataError(
            f"layer is {layer!r}: it must be one of {', '.join(EMBEDDING_LAYERS)}, and this model has "
            f"{'an' if self.aggregator is not None else 'no'} aggregator and a header with "
            f"{self.cfg.header_hidden} hidden channels"
        )

    def max_positions(self) -> None:
        return None
