"""From the frames of a clip, or of a segment of it, to one embedding."""

from dataclasses import dataclass, field
from typing import List, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from omegaconf import II
from torch import Tensor, nn

from av_ssl.data.clip_reader import STREAMS
from av_ssl.data.reading import SAMPLES_PER_FRAME
from av_ssl.models.av_encoder import Source
from av_ssl.models.pretrained import FineTunedEncoder, PretrainedEncoderConfig
from av_ssl.modules.masked_norm import RowBatchNorm
from av_ssl.modules.pooling import POOLINGS, make_pooling
from av_ssl.modules.spectrogram_frontend import FILTERBANK_BANDS, SpectrogramResNet
from av_ssl.modules.video_frontend import VideoFrontend


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

    def __init__(self, cfg: ClipEncoderConfig, streams: tuple[str, ...]) -> None:
        super().__init__()
        channels = self.output_dim = cfg.frontend_dim
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
    cfg: ClipEncoderConfig, streams: tuple[str, ...], load_weights: bool
) -> FineTunedEncoder:
    """A pre-trained encoder without the front-ends of streams that it will not get."""
    backbone = FineTunedEncoder(cfg, load_weights)
    for stream in {"audio", "video"} - set(streams):
        if hasattr(backbone.w2v_model, f"feature_extractor_{stream}"):
            setattr(backbone.w2v_model, f"feature_extractor_{stream}", None)
    return backbone


class ClipEncoder(nn.Module):
    """The encoder f: frames, pooled over time, to an embedding; a bottleneck of one width for all encoders,
    so that those of teacher and student can be compared.

    Args:
        cfg: ``w2v_args`` (filled in from ``w2v_path``) says whether the encoder is a pre-trained one.
        load_weights: read the pre-trained weights.

    Raises:
        ValueError: ``streams`` is unknown.
    """

    def __init__(self, cfg: ClipEncoderConfig, load_weights: bool) -> None:
        super().__init__()
        if str(cfg.streams) not in STREAMS:
            raise ValueError(f"model.streams is {cfg.streams}; it must be one of {', '.join(STREAMS)}")
        self.streams = STREAMS[str(cfg.streams)]
        self.backbone: FrontEnds | FineTunedEncoder
        if cfg.w2v_args is None:
            self.backbone = FrontEnds(cfg, self.streams)
        else:
            self.backbone = pretrained_backbone(cfg, self.streams, load_weights)
        self.pooling = make_pooling(str(cfg.frame_pooling), self.backbone.output_dim)
        self.bottleneck = nn.Linear(self.pooling.output_dim, cfg.embed_dim)
        self.norm = RowBatchNorm(cfg.embed_dim)

    def forward(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Embed B clips (or segments).

        Args:
            source: ``audio`` and ``video`` (see :data:`~av_ssl.models.av_encoder.Source`); a stream that the
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
