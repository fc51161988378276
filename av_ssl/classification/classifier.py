"""Classifier of clips (speakers, emotions) from audio, video or both.

``encoder`` (frames to one embedding per clip or segment) -> ``aggregator`` (embeddings of segments to one of
the clip; only with ``segment_frames``) -> ``header`` (classes).  LUPI's teachers (Hajavi and Etemad, arXiv
2302.02845) and its audio-only baseline are such classifiers.  The abstract names them; the rest is ours.
"""

from dataclasses import dataclass
from typing import Any, List, Optional

import torch
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.classification.layers import POOLINGS, ClassHead, cut_audio, cut_video
from av_ssl.compat.keys import option
from av_ssl.data.classes import SegmentBatch
from av_ssl.data.dataset import DataNeeds
from av_ssl.errors import DataError
from av_ssl.layout import SAMPLES_PER_FRAME, STREAMS
from av_ssl.methods.encoder_model import Source
from av_ssl.modules.frontends import VideoFrontend
from av_ssl.modules.spectrogram_frontend import FILTERBANK_BANDS, RowBatchNorm, SpectrogramResNet
from av_ssl.recognition.encoder import FineTunedEncoder, PretrainedEncoderConfig

# -- configuration -------------------------------------------------------------------------------------------


@dataclass
class ClassifierConfig(PretrainedEncoderConfig):
    """Encoder (pre-trained with ``w2v_path``, else front-ends from scratch), aggregator and head.

    The keys from ``frontend_dim`` to ``video_width`` are for front-ends from scratch.
    """

    streams: str = option(II("task.modalities"), "input of the encoder: audio, video or av")
    audio_input: str = option(II("task.audio_input"), "filterbank or waveform, as the data has it")
    segment_frames: int = option(
        II("task.segment_frames"), "frames of a segment; 0: whole clips, and no aggregator"
    )
    frontend_dim: int = option(256, "channels of each front-end's features")
    audio_width: int = option(16, "channels of the spectrogram ResNet's first stage")
    audio_blocks: List[int] = option([3, 4, 6, 3], "residual blocks of its four stages")
    mel_bands: int = option(80, "mel bands of waveforms (filterbanks have 26)")
    subtract_mean: bool = option(True, "subtract each mel band's mean over the clip, and with it loudness")
    video_width: int = option(64, "channels of the visual ResNet's first stage")
    image_mean: float = option(II("task.image_mean"), "mean of the pixel values (0..1)")
    image_std: float = option(II("task.image_std"), "standard deviation of the pixel values")
    frame_pooling: str = option(
        "mean", "pooling of frames: mean, or asp (attentive statistics; recipes of speakers)"
    )
    embed_dim: int = option(256, "channels of the encoder's embedding")
    aggregator: str = option("asp", "pooling of segments: asp (attentive statistics) or mean")
    aggregate_dim: int = option(256, "channels of the aggregated embedding")
    header: str = option("softmax", "softmax, or aam (additive angular margin; recipes of speakers)")
    header_hidden: int = option(0, "channels of the head's hidden layer; 0: none")
    header_dropout: float = option(0.0, "dropout after the hidden layer")
    margin: float = option(0.2, "margin of aam in radians")
    scale: float = option(30.0, "factor of the cosines of aam")
    margin_updates: int = option(0, "updates during which the margin rises from 0")
    num_classes: int = option(0, "set by the task from its list of classes")


CHOICES: dict[str, tuple[Any, ...]] = {
    # av_classifier and lupi_student
    "frame_pooling": ("mean", "asp"),
    "aggregator": ("asp", "mean"),
    "header": ("softmax", "aam"),
    # lupi_student
    "embedding_norm": ("standardize", "none"),
    "agg_grad_to_encoder": (True,),
    "agg_trained_by": ("teacher",),
    "hint_dim": (0,),
    # criterion lupi
    "distance": ("mse", "nmse"),
    "soft_labels": ("none", "paper"),
}
"""Supported values of the keys that had more of them in version 0.1."""


def check_choices(section: str, cfg: Any) -> None:
    """Raise DataError for a value that is not, or no longer, supported; ``section`` is model or criterion."""
    for key, supported in CHOICES.items():
        value = getattr(cfg, key, supported[0])
        if value not in supported:
            raise DataError(
                f"{section}.{key}={value} is not supported (version 0.1 had more values): use "
                f"{' or '.join(map(str, supported))}"
            )


# -- encoder and aggregator ----------------------------------------------------------------------------------


class FrontEnds(nn.Module):
    """Front-ends from scratch: a thin ResNet over the spectrogram, AV-HuBERT's over the video.

    Tensors: ``audio.*``, ``video.*`` and, with both streams, ``fusion.*``.
    """

    output_dim: int
    depth = 0  # there is no Transformer

    def __init__(self, cfg: ClassifierConfig, streams: tuple[str, ...]) -> None:
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
        fusion = [nn.Linear(2 * channels, channels), nn.ReLU()] if len(streams) == 2 else []
        self.fusion = nn.Sequential(*fusion)

    def encode(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Return frame features ``[B, T, C]``."""
        features = []
        if self.audio is not None:
            features.append(self.audio(source["audio"], padding_mask))
        if self.video is not None:
            features.append(self.video(source["video"], padding_mask, frame_index))
        return self.fusion(torch.cat(features, dim=-1))

    def hidden_states(
        self, source: Source, padding_mask: Tensor | None = None, last: int | None = None
    ) -> list[Tensor]:
        """Return ``[B, T, C]`` as the only item: there is no Transformer.  For eval mode."""
        if padding_mask is None:
            video, audio = source.get("video"), source.get("audio")
            present = audio if video is None else video
            assert present is not None
            frames = present.size(1) // SAMPLES_PER_FRAME if present.dim() == 2 else present.size(2)
            padding_mask = present.new_zeros(len(present), frames, dtype=torch.bool)
        return [self.encode(source, padding_mask)]


class ClipEncoder(nn.Module):
    """Frames, pooled over time, to an embedding of ``embed_dim`` channels.

    Args:
        cfg: ``w2v_args`` (filled in from ``w2v_path``) makes it a pre-trained encoder.
        pretrained: the checkpoint that training starts from, if there is one.
    """

    def __init__(self, cfg: ClassifierConfig, pretrained: StoredModel | None) -> None:
        super().__init__()
        if str(cfg.streams) not in STREAMS:
            raise DataError(f"model.streams={cfg.streams} is not one of {', '.join(STREAMS)}")
        self.streams = STREAMS[str(cfg.streams)]
        self.backbone: FrontEnds | FineTunedEncoder
        if cfg.w2v_args is None:
            self.backbone = FrontEnds(cfg, self.streams)
        else:
            self.backbone = FineTunedEncoder(cfg, pretrained)
            for unused in {"audio", "video"} - set(self.streams):
                if hasattr(self.backbone.w2v_model, f"feature_extractor_{unused}"):
                    setattr(self.backbone.w2v_model, f"feature_extractor_{unused}", None)
        self.pooling = POOLINGS[str(cfg.frame_pooling)](self.backbone.output_dim)
        self.bottleneck = nn.Linear(self.pooling.output_dim, cfg.embed_dim)
        self.norm = RowBatchNorm(cfg.embed_dim)

    def forward(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Embed B clips or segments as ``[B, D]``.

        Args:
            source: ``audio`` and ``video``; streams that the encoder does not take are ignored.
            padding_mask: bool ``[B, T]``, True on padding.
            frame_index: int64 ``[F]``, flat indices of the real frames.

        Raises:
            DataError: a stream is missing.
        """
        wanted: Source = {stream: source.get(stream) for stream in self.streams}
        missing = [stream for stream, value in wanted.items() if value is None]
        if missing:
            raise DataError(
                f"the encoder takes {' and '.join(self.streams)}, but the batch has no "
                f"{' and no '.join(missing)}: set task.modalities"
            )
        frames = self.backbone.encode(wanted, padding_mask, frame_index)
        return self.norm(self.bottleneck(self.pooling(frames, padding_mask)))


class Aggregator(nn.Module):
    """Embeddings of a clip's segments to one embedding of the clip."""

    def __init__(self, cfg: ClassifierConfig) -> None:
        super().__init__()
        self.pooling = POOLINGS[str(cfg.aggregator)](cfg.embed_dim)
        self.proj = nn.Linear(self.pooling.output_dim, cfg.aggregate_dim)
        self.norm = RowBatchNorm(cfg.aggregate_dim)

    def forward(self, segments: Tensor, empty: Tensor) -> Tensor:
        """Aggregate ``segments [B, K, D]``, ``empty`` bool ``[B, K]``, to ``[B, Z]``."""
        return self.norm(self.proj(self.pooling(segments, empty)))


# -- model ---------------------------------------------------------------------------------------------------

EMBEDDING_LAYERS = ("auto", "encoder", "aggregator", "header")


@register_model("av_classifier", dataclass=ClassifierConfig)
class AVClassifier(BaseFairseqModel):
    """Classifier of clips.  Tensors: ``encoder.*``, ``aggregator.*``, ``header.*``.

    Without segments a clip counts as one segment, whose embedding goes straight to the head.  ``with_header``
    is False for training by embeddings alone.
    """

    def __init__(
        self, cfg: ClassifierConfig, pretrained: StoredModel | None, with_header: bool = True
    ) -> None:
        super().__init__()
        check_choices("model", cfg)
        self.cfg = cfg
        self.encoder = ClipEncoder(cfg, pretrained)
        self.aggregator = Aggregator(cfg) if cfg.segment_frames > 0 else None
        self.header: ClassHead | None = None
        if with_header:
            self.header = ClassHead(
                cfg.embed_dim if self.aggregator is None else cfg.aggregate_dim,
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
            source, padding_mask, frame_index, segments: ``net_input`` of the data pipeline.
            target: int64 ``[B]``, for heads with a margin; -1 where the class is unknown.

        Returns:
            ``enc [B, K, D]`` with ``empty`` bool ``[B, K]``; ``agg [B, Z]`` if there is an aggregator; what
            ``HeadOutput`` lists if there is a head.
        """
        embeddings, empty = self.embed_segments(source, padding_mask, frame_index, segments)
        clip = self.aggregate(embeddings, empty)
        output = {"enc": embeddings, "empty": empty}
        if self.aggregator is not None:
            output["agg"] = clip
        if self.header is not None:
            output.update(self.header(self.header_input(clip), target)._asdict())
        return output

    def embed_segments(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode every segment of every clip separately.

        Returns:
            ``[B, K, D]``, zero where there is no segment, and bool ``[B, K]``, True there.
        """
        if (segments is None) != (self.aggregator is None):
            raise DataError(
                f"the model was built for segments of {self.cfg.segment_frames} frames (0: whole clips), "
                f"the batch has {'no' if segments is None else 'some'}: set task.segment_frames alike"
            )
        if segments is None:
            embedding = self.encoder(source, padding_mask, frame_index)
            return embedding[:, None], padding_mask.new_zeros(len(embedding), 1)
        frames, padded, empty = segments["frames"], segments["padding_mask"], segments["empty"]
        audio, video = source.get("audio"), source.get("video")
        cut: Source = {}
        if audio is not None and "audio" in self.encoder.streams:
            cut["audio"] = cut_audio(audio, frames, padded)
        if video is not None and "video" in self.encoder.streams:
            cut["video"] = cut_video(video, frames)
        embedding = self.encoder(cut, padded, segments["frame_index"])
        spread = embedding.new_zeros(empty.numel(), embedding.size(-1))
        spread = spread.index_copy(0, segments["slots"], embedding)
        return spread.view(*empty.shape, -1), empty

    def aggregate(self, embeddings: Tensor, empty: Tensor) -> Tensor:
        """Reduce ``[B, K, D]`` to the embedding of the clip: ``[B, Z]``, or ``[B, D]`` without aggregator."""
        return embeddings[:, 0] if self.aggregator is None else self.aggregator(embeddings, empty)

    @property
    def data_needs(self) -> DataNeeds:
        """Nothing beyond the streams: the masks of a pre-trained encoder are not for classification."""
        return DataNeeds()

    def header_input(self, clip: Tensor) -> Tensor:
        """Input of the head; subclasses may stop its gradient here."""
        return clip

    @torch.no_grad()
    def embed(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
        layer: str = "auto",
    ) -> Tensor:
        """Embeddings float32 ``[B, D]`` for comparing clips.

        Args:
            source, padding_mask, frame_index, segments: ``net_input`` of the data pipeline.
            layer: ``encoder`` (mean over segments), ``aggregator``, or ``header`` (its hidden layer, the only
                one that labels train in a LUPI student); ``auto``: the aggregator or, without one, encoder.
        """
        embeddings, empty = self.embed_segments(source, padding_mask, frame_index, segments)
        if layer == "encoder" or (layer == "auto" and self.aggregator is None):
            return embeddings.float().sum(1) / (~empty).sum(1, keepdim=True)
        if layer in ("auto", "aggregator") and self.aggregator is not None:
            return self.aggregator(embeddings, empty).float()
        if layer == "header" and self.header is not None and self.cfg.header_hidden:
            return self.header.hidden(self.aggregate(embeddings, empty)).float()
        raise DataError(
            f"layer {layer!r}: this model has {'no' if self.aggregator is None else 'an'} aggregator and a "
            f"head with {self.cfg.header_hidden} hidden channels; choose from {', '.join(EMBEDDING_LAYERS)}"
        )
