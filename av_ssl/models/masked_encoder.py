"""The student of every fused method: the audio-visual encoder on damaged input.

Masking, modality dropout and their order are AV-HuBERT's (Shi et al., 2022, sections 3.2 and 3.3); masking of
each stream's features before fusion is AV2vec's successors'.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from av_ssl.data.masking import StreamMasking
from av_ssl.data.spans import SPAN_LENGTHS, SpanMask
from av_ssl.models.av_encoder import AudioVisualEncoder, AudioVisualEncoderConfig, Features, Source
from av_ssl.modules.masking import blank_frames, replace_frames, take_frames

MASKINGS = ChoiceEnum(["stream_feature", "input", "feature"])
SELECTIONS = ChoiceEnum(list(SPAN_LENGTHS))
REPLACEMENTS = ChoiceEnum(["same_other_seq", "same_seq"])
HEADS = ("final_proj", "final_pred_proj", "label_embs_concat", "target_glu", "teacher_heads", "teacher")
"""Parts of the methods that serve their objectives alone."""


@dataclass
class MaskedEncoderConfig(AudioVisualEncoderConfig):
    """What the student does not see; names and defaults are AV-HuBERT's."""

    masking_type: MASKINGS = field(  # type: ignore[valid-type]
        default="input",
        metadata={
            "help": "what is masked: the input itself, the fused features (feature), or each stream's "
            "features before fusion (stream_feature)"
        },
    )
    selection_type: REPLACEMENTS = field(  # type: ignore[valid-type]
        default="same_other_seq",
        metadata={
            "help": "what masked video frames show under masking_type=input: the same frames of another "
            "clip, or other frames of the same clip (same_seq)"
        },
    )
    mask_prob_audio: float = field(default=0.65, metadata={"help": "masked audio spans x length / frames"})
    mask_length_audio: int = field(default=10, metadata={"help": "frames of a masked audio span"})
    mask_prob_image: float = field(default=0.65, metadata={"help": "masked video spans x length / frames"})
    mask_length_image: int = field(default=10, metadata={"help": "frames of a masked video span"})
    mask_selection: SELECTIONS = field(  # type: ignore[valid-type]
        default="static", metadata={"help": "how the lengths of spans are drawn"}
    )
    mask_other: float = field(
        default=0.0, metadata={"help": "shortest span (uniform) or standard deviation (normal)"}
    )
    no_mask_overlap: bool = field(default=False, metadata={"help": "spans of a stream do not overlap"})
    mask_min_space: int = field(default=1, metadata={"help": "frames between spans that may not overlap"})
    modality_dropout: float = field(
        default=0.0, metadata={"help": "probability that the student loses one stream of a batch"}
    )
    audio_dropout: float = field(default=0.0, metadata={"help": "that it is the audio"})


class MaskedAudioVisualEncoder(AudioVisualEncoder):
    """Encoder, mask embeddings, and the damaged view of a batch.

    Tensors besides the encoder's: ``mask_emb`` (of the audio input's size for ``masking_type=input``, else
    [C]) and, for ``stream_feature``, ``mask_emb_video`` [C].
    """

    cfg: MaskedEncoderConfig

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
        """What the data pipeline draws for each batch."""
        return self.stream_masking()

    def stream_masking(self, **loss_frames: Any) -> StreamMasking:
        """The masks of the configuration; sub-classes say which frames count."""
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
        """Run the front-ends on what the student gets.

        Returns:
            Features masked as far as that happens before fusion, and the same without masks, from the same
            pass; None where the input itself is masked.
        """
        if self.masking_type == "input":
            return self.front_ends(self.masked_input(source, masks), padding_mask, frame_index), None
        # A dropped video needs no backward pass through the ResNet.
        seen = self.front_ends(source, padding_mask, frame_index, video_grad=masks["dropped"] != "video")
        if self.masking_type == "feature":
            return seen, seen
        assert seen.audio is not None
        assert seen.video is not None
        masked = Features(
            replace_frames(seen.audio, masks["audio"], self.mask_emb),
            replace_frames(seen.video, masks["video"], self.mask_emb_video),
        )
        return masked, seen

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
        if video is None or masks["dropped"] == "video":  # and so not worth a pass through the ResNet
            return None
        if masks["zeroed"]:
            return blank_frames(video, masks["video"], self.cfg.image_mean)
        return take_frames(video, masks["video_source"])

    def masked_source(self, source: Source, padding_mask: Tensor | None) -> Source:
        """The input with spans hidden, by torch's generator, and no stream dropped; one may be absent.

        Raises:
            ValueError: this model masks features, not the input.
        """
        if self.masking_type != "input":
            raise ValueError(
                f"mask=True: this model's masking_type is {self.masking_type}, and only the input can be "
                "masked here; call forward with what model.masking.draw gives, or leave mask out"
            )
        given: Source = {"audio": source.get("audio"), "video": source.get("video")}
        present = next((stream for stream in given.values() if stream is not None), None)
        if present is None:
            return given
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
        """Drop a stream, fuse, encode.

        Returns:
            ``[B, T, C]``, and the mean squared fused feature over real frames (float32 scalar) that is to be
            kept small.
        """
        joined = self.join(drop_stream(features, masks["dropped"]))
        penalty = joined.flatten(0, 1)[frame_index].float().square().mean()
        fused = self.dropout_input(self.project(joined))
        if self.masking_type == "feature":
            fused = replace_frames(fused, masks["audio"], self.mask_emb)
        return self.encoder(fused, padding_mask), penalty

    def remove_pretraining_modules(self) -> None:
        """Drop what only pre-training needs: the name by which fine-tuning models of fairseq's ask for it."""
        for name in HEADS:
            if hasattr(self, name):
                setattr(self, name, None)


def drop_stream(features: Features, dropped: str | None) -> Features:
    """Zero the stream that modality dropout took; parameters that had a gradient path keep a (zero) one."""
    if dropped is None or getattr(features, dropped) is None:
        return features
    return features._replace(**{dropped: getattr(features, dropped) * 0})
