"""The fused audio-visual encoder of AV-HuBERT, AV2vec and DistillAV, and the student that they train.

Encoder (Shi et al., 2022, arXiv 2201.02184, section 3): two front-ends give C channels a frame each; [audio ;
video] goes through a layer norm and a linear layer into a Transformer.  Tensor names are AV-HuBERT's, so
weights move between all fused methods, and fine-tuning starts from any of them.

Student: the encoder on a corrupted clip.  Spans of each stream are masked and one stream may be dropped
(sections 3.2 and 3.3); masking each stream's features before fusion came with AV-HuBERT's successors.

    source -> front-ends -> mask each stream -> drop a stream -> fuse -> Transformer
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum
from omegaconf import II
from torch import Tensor, nn

from av_ssl.compat.keys import option
from av_ssl.data.dataset import DataNeeds
from av_ssl.data.masking import REPLACING_FRAMES, StreamMasking
from av_ssl.data.spans import SPAN_LENGTHS, SpanMask
from av_ssl.layout import STREAMS
from av_ssl.methods.encoder_model import EncoderModel, Source
from av_ssl.modules.frontends import AudioFrontend, VideoFrontend, with_scaled_gradient
from av_ssl.modules.masked_frames import gray_frames, replace_frames, take_frames
from av_ssl.modules.transformer import TransformerConfig, TransformerEncoder

FUSIONS = ChoiceEnum(["concat", "add"])
RESNET_ACTIVATIONS = ChoiceEnum(["prelu", "relu"])


@dataclass
class AudioVisualEncoderConfig(TransformerConfig):
    """The fused encoder; names and defaults are AV-HuBERT's unless the help says otherwise."""

    audio_feat_dim: int = option(104, "stacked filterbank channels: 4 frames of 26 (AV-HuBERT: no default)")
    modality_fuse: FUSIONS = option("concat", "how the two streams are fused")  # type: ignore[valid-type]
    resnet_relu_type: RESNET_ACTIVATIONS = option("prelu", "activation of the visual front-end")  # type: ignore[valid-type]
    resnet_width: int = option(64, "channels of the ResNet's first stage (AV-HuBERT has 64; less is cheaper)")
    sub_encoder_layers: int = option(0, "Transformer layers of each stream, after its front-end")
    dropout_input: float = option(0.0, "dropout of the fused features")
    feature_grad_mult: float = option(1.0, "scale of the gradient into the front-ends; 0 freezes them")
    image_mean: float = option(II("task.image_mean"), "mean of the grayscale values (0..1)")
    image_std: float = option(II("task.image_std"), "their standard deviation")
    compile: bool = option(False, "torch.compile the ResNet and the Transformer layers (torch >= 2.2) [ours]")


class Features(NamedTuple):
    """Front-end outputs ``[B, T, C]``; None for a stream that was not given."""

    audio: Tensor | None
    video: Tensor | None


class AudioVisualEncoder(EncoderModel):
    """Front-ends, fusion and Transformer, without any training objective."""

    def __init__(self, cfg: AudioVisualEncoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        channels = cfg.encoder_embed_dim
        self.feature_extractor_audio = AudioFrontend(cfg.audio_feat_dim, channels)
        self.feature_extractor_video = VideoFrontend(
            channels, cfg.resnet_width, str(cfg.resnet_relu_type), cfg.image_mean, cfg.image_std
        )
        if cfg.sub_encoder_layers > 0:
            for front_end in (self.feature_extractor_audio, self.feature_extractor_video):
                front_end.encoder = TransformerEncoder(cfg, cfg.sub_encoder_layers)
        self.concat = str(cfg.modality_fuse) == "concat"
        fused = 2 * channels if self.concat else channels
        self.layer_norm = nn.LayerNorm(fused)
        self.post_extract_proj = nn.Linear(fused, channels) if self.concat else None
        self.dropout_input = nn.Dropout(cfg.dropout_input)
        self.encoder = TransformerEncoder(cfg)
        if cfg.compile:  # what is called with few distinct shapes; in place, so that tensor names stay
            for part in (self.feature_extractor_video.resnet.trunk, *self.encoder.layers):
                part.compile()

    # -- the steps of a forward pass -------------------------------------------------------------------------

    def front_ends(
        self,
        source: Source,
        padding_mask: Tensor | None,
        frame_index: Tensor | None = None,
        video_grad: bool = True,
    ) -> Features:
        """Run the front-ends on ``source``; ``video_grad=False`` saves the visual backward pass."""
        audio, video = source.get("audio"), source.get("video")
        if audio is None and video is None:
            raise ValueError("source has neither audio nor video")
        scale = self.cfg.feature_grad_mult
        audio_features = video_features = None
        if audio is not None:
            audio_features = with_scaled_gradient(lambda: self.feature_extractor_audio(audio), scale)
        if video is not None:
            video_features = with_scaled_gradient(
                lambda: self.feature_extractor_video(video, padding_mask, frame_index),
                scale if video_grad else 0.0,
            )
        return Features(audio_features, video_features)

    def join(self, features: Features) -> Tensor:
        """Concatenate (or add) the streams, zeros for an absent one -> ``[B, T, 2C]`` (or ``[B, T, C]``)."""
        audio, video = features
        present = audio if audio is not None else video
        assert present is not None
        audio = torch.zeros_like(present) if audio is None else audio
        video = torch.zeros_like(present) if video is None else video
        return torch.cat([audio, video], dim=-1) if self.concat else audio + video

    def project(self, joined: Tensor) -> Tensor:
        """Layer norm and linear layer into the encoder's channels: ``[B, T, C]``, no dropout."""
        x = self.layer_norm(joined)
        return x if self.post_extract_proj is None else self.post_extract_proj(x)

    # -- the encoder's interface -----------------------------------------------------------------------------

    def transformer_input(
        self, source: Source, padding_mask: Tensor | None, frame_index: Tensor | None = None
    ) -> Tensor:
        return self.project(self.join(self.front_ends(source, padding_mask, frame_index)))

    def run_layers(
        self, x: Tensor, padding_mask: Tensor | None, last: int | None = None, collect: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        first = 1 if collect else None
        x, outputs = self.encoder.run(self.dropout_input(x), padding_mask, first=first, last=last)
        return x, [output.residual for output in outputs]

    def final_norm(self, x: Tensor) -> Tensor:
        return self.encoder.layer_norm(x) if self.encoder.norm_first else x

    def layer_stack(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
        return list(self.encoder.layers), [self.encoder.layer_norm] if self.encoder.norm_first else []

    @property
    def stream_choices(self) -> list[tuple[str, ...]]:
        has = {s for s in STREAMS["av"] if getattr(self, f"feature_extractor_{s}") is not None}
        return [streams for streams in STREAMS.values() if has.issuperset(streams)]


MASKINGS = ChoiceEnum(["stream_feature", "input", "feature"])
SELECTIONS = ChoiceEnum(list(SPAN_LENGTHS))
REPLACEMENTS = ChoiceEnum(list(REPLACING_FRAMES))


@dataclass
class MaskedEncoderConfig(AudioVisualEncoderConfig):
    """How the student's input is corrupted; names and defaults are AV-HuBERT's."""

    masking_type: MASKINGS = option(  # type: ignore[valid-type]
        "input", "what is masked: the input, fused features (feature), or each stream's (stream_feature)"
    )
    selection_type: REPLACEMENTS = option(  # type: ignore[valid-type]
        "same_other_seq",
        "what replaces masked video frames under masking_type=input: the same frames of another clip, or "
        "other frames of the same clip (same_seq)",
    )
    mask_prob_audio: float = option(0.65, "masked audio spans x length / frames")
    mask_length_audio: int = option(10, "frames of a masked audio span")
    mask_prob_image: float = option(0.65, "masked video spans x length / frames")
    mask_length_image: int = option(10, "frames of a masked video span")
    mask_selection: SELECTIONS = option("static", "how the lengths of spans are drawn")  # type: ignore[valid-type]
    mask_other: float = option(0.0, "shortest span (uniform) or standard deviation (normal)")
    no_mask_overlap: bool = option(False, "spans of a stream do not overlap")
    mask_min_space: int = option(1, "frames between spans that may not overlap")
    modality_dropout: float = option(0.0, "probability that the student loses one stream of a batch")
    audio_dropout: float = option(0.0, "that it is the audio")


@dataclass
class RecipeConfig(MaskedEncoderConfig):
    """The values of AV-HuBERT's recipes and of DistillAV's public code, from which newer methods start.

    ``[recipes]``: AV-HuBERT's recipes have it too.  ``[public code]``: as DistillAV's authors published it;
    for AV2vec a reconstruction.
    """

    layer_norm_first: bool = option(True, "layer norm before each block [recipes]")
    encoder_layerdrop: float = option(0.05, "probability of skipping a layer [recipes]")
    dropout_input: float = option(0.1, "dropout of the fused features [recipes]")
    feature_grad_mult: float = option(0.1, "scale of the gradient into the front-ends [recipes]")
    masking_type: MASKINGS = option(  # type: ignore[valid-type]
        "stream_feature",
        "what is masked: each stream's features before fusion [public code], or AV-HuBERT's choices: input, "
        "fused features",
    )
    mask_prob_audio: float = option(0.8, "masked audio spans x length / frames [public code]")
    mask_prob_image: float = option(0.3, "masked video spans x length / frames [public code]")
    mask_length_image: int = option(5, "frames of a masked video span [public code]")
    modality_dropout: float = option(0.5, "probability that the student loses a stream [public code]")
    audio_dropout: float = option(0.5, "that it is the audio [public code]")
    final_dim: int = option(256, "channels in which output and clusters are compared [recipes]")


class MaskedAudioVisualEncoder(AudioVisualEncoder):
    """Encoder, mask embeddings, and the corrupted view of a batch.

    Tensors besides the encoder's: ``mask_emb`` (of the audio input's size for ``masking_type=input``, else
    [C]) and, for ``stream_feature``, ``mask_emb_video`` [C].
    """

    cfg: MaskedEncoderConfig
    pretraining_only: ClassVar[tuple[str, ...]] = ("mask_emb",)
    """Prefixes of the tensors that only pre-training uses; fine-tuning does not take them."""

    def __init__(self, cfg: MaskedEncoderConfig) -> None:
        super().__init__(cfg)
        channels = cfg.encoder_embed_dim
        self.masking_type = str(cfg.masking_type)
        self.mask_emb = nn.Parameter(
            torch.rand(cfg.audio_feat_dim if self.masking_type == "input" else channels)
        )
        if self.masking_type == "stream_feature":
            self.mask_emb_video = nn.Parameter(torch.rand(channels))

    @property
    def masking(self) -> StreamMasking:
        return self.stream_masking()

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(masking=self.masking)

    def stream_masking(self, **loss_frames: Any) -> StreamMasking:
        """The masks of the configuration; ``loss_frames`` select the frames of the loss."""
        cfg = self.cfg
        return StreamMasking(
            audio=self.spans(cfg.mask_prob_audio, cfg.mask_length_audio),
            video=self.spans(cfg.mask_prob_image, cfg.mask_length_image),
            modality_dropout=cfg.modality_dropout,
            audio_dropout=cfg.audio_dropout,
            shared=self.masking_type == "feature",
            replacement=str(cfg.selection_type) if self.masking_type == "input" else None,
            **loss_frames,
        )

    def spans(self, probability: float, length: int) -> SpanMask:
        cfg = self.cfg
        return SpanMask(
            probability,
            length,
            selection=str(cfg.mask_selection),
            other=cfg.mask_other,
            overlap=not cfg.no_mask_overlap,
            min_space=cfg.mask_min_space,
        )

    def student_features(
        self, source: Source, padding_mask: Tensor, masks: dict[str, Any], frame_index: Tensor
    ) -> tuple[Features, Features | None]:
        """Run the front-ends on the student's input.

        Returns:
            The student's features, masked unless that happens after fusion, and the same without masks, from
            the same pass; None where the input itself is masked.
        """
        if self.masking_type == "input":
            return self.front_ends(self.masked_input(source, masks), padding_mask, frame_index), None
        # A dropped video needs no backward pass through the ResNet.
        unmasked = self.front_ends(source, padding_mask, frame_index, video_grad=masks["dropped"] != "video")
        if self.masking_type == "feature":
            return unmasked, unmasked
        assert unmasked.audio is not None
        assert unmasked.video is not None
        masked = Features(
            replace_frames(unmasked.audio, masks["audio"], self.mask_emb),
            replace_frames(unmasked.video, masks["video"], self.mask_emb_video),
        )
        return masked, unmasked

    def masked_input(self, source: Source, masks: dict[str, Any]) -> Source:
        return {
            "audio": self.masked_audio(source["audio"], masks),
            "video": self.masked_video(source["video"], masks),
        }

    def masked_audio(self, audio: Tensor | None, masks: dict[str, Any]) -> Tensor | None:
        if audio is None:
            return None
        embedding = self.mask_emb * 0 if masks["zeroed"] else self.mask_emb
        return replace_frames(audio.transpose(1, 2), masks["audio"], embedding).transpose(1, 2)

    def masked_video(self, video: Tensor | None, masks: dict[str, Any]) -> Tensor | None:
        if video is None or masks["dropped"] == "video":  # no need to run the ResNet
            return None
        if masks["zeroed"]:
            return gray_frames(video, masks["video"], self.cfg.image_mean)
        return take_frames(video, masks["video_source"])

    def masked_source(self, source: Source, padding_mask: Tensor | None) -> Source:
        """The input with masked spans, by torch's generator; no stream is dropped, one may be absent."""
        if self.masking_type != "input":
            raise ValueError(
                f"mask=True: this model's masking_type is {self.masking_type}, and only the input can be "
                "masked here; call forward with what model.masking.draw gives, or leave mask out"
            )
        given: Source = {"audio": source.get("audio"), "video": source.get("video")}
        present = next((stream for stream in given.values() if stream is not None), None)
        if present is None:
            return given  # front_ends refuses it
        clips, frames = len(present), present.size(2)
        lengths = [frames] * clips if padding_mask is None else (~padding_mask).sum(1).tolist()
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        drawn = self.masking.draw(lengths, frames, rng, training=False)
        masks = {
            key: value.to(present.device) if isinstance(value, Tensor) else value
            for key, value in drawn.items()
        }
        return self.masked_input(given, masks)

    def encode_student(
        self, features: Features, padding_mask: Tensor, masks: dict[str, Any], frame_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Drop a stream, fuse, encode: ``[B, T, C]``, and the mean squared fused feature over real frames."""
        joined = self.join(drop_stream(features, masks["dropped"]))
        penalty = joined.flatten(0, 1)[frame_index].float().square().mean()
        fused = self.dropout_input(self.project(joined))
        if self.masking_type == "feature":
            fused = replace_frames(fused, masks["audio"], self.mask_emb)
        return self.encoder(fused, padding_mask), penalty

    def remove_pretraining_modules(self) -> None:
        """Delete the modules of pre-training; fairseq's fine-tuning models call it by this name."""
        for prefix in self.pretraining_only:
            name = prefix.rstrip(".")
            if hasattr(self, name) and not name.startswith("mask_emb"):  # the input can still be masked
                setattr(self, name, None)


def drop_stream(features: Features, dropped: str | None) -> Features:
    """Zero the stream that modality dropout took; parameters that had a gradient path keep a (zero) one."""
    if dropped is None or getattr(features, dropped) is None:
        return features
    return features._replace(**{dropped: getattr(features, dropped) * 0})
