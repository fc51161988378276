"""AV-HuBERT: masked multimodal cluster prediction (Shi et al., ICLR 2022, arXiv 2201.02184).

The student predicts, from masked audio and video of which one may be missing, the cluster id of every masked
frame.  The clusters come from MFCC at first, then from the previous iteration's model (`av-ssl targets`).
With noise on the student's audio it is robust AV-HuBERT (Shi et al., 2022, arXiv 2201.01763).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.models import register_model
from torch import Tensor

from av_ssl.models.av_encoder import Source
from av_ssl.models.cluster_head import ClusterHead, ClusterHeadConfig, label_classes
from av_ssl.models.masked_encoder import MaskedAudioVisualEncoder, MaskedEncoderConfig

logger = logging.getLogger(__name__)


@dataclass
class UnusedKeys:
    """Keys of AV-HuBERT's YAML files and checkpoints that have no effect in pre-training, there or here."""

    label_rate: Optional[float] = field(default=None, metadata={"help": "the task's is used"})
    input_modality: Optional[str] = field(default=None, metadata={"help": "without effect"})
    extractor_mode: str = field(default="default", metadata={"help": "without effect"})
    conv_feature_layers: Optional[str] = field(default=None, metadata={"help": "without effect"})
    conv_bias: bool = field(default=False, metadata={"help": "without effect"})
    latent_temp: Any = field(default=None, metadata={"help": "without effect"})
    dropout_features: float = field(default=0.0, metadata={"help": "without effect"})
    skip_masked: bool = field(default=False, metadata={"help": "without effect"})
    skip_nomask: bool = field(default=False, metadata={"help": "without effect"})
    wav_input: bool = field(default=False, metadata={"help": "without effect"})
    decoder_embed_dim: int = field(default=768, metadata={"help": "without effect in pre-training"})
    decoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "without effect in pre-training"})
    decoder_layers: int = field(default=6, metadata={"help": "without effect in pre-training"})
    decoder_layerdrop: float = field(default=0.0, metadata={"help": "without effect in pre-training"})
    decoder_attention_heads: int = field(default=4, metadata={"help": "without effect in pre-training"})
    decoder_learned_pos: bool = field(default=False, metadata={"help": "without effect in pre-training"})
    decoder_normalize_before: bool = field(default=False, metadata={"help": "without effect in pre-training"})
    no_token_positional_embeddings: bool = field(
        default=False, metadata={"help": "without effect in pre-training"}
    )
    decoder_dropout: float = field(default=0.1, metadata={"help": "without effect in pre-training"})
    decoder_attention_dropout: float = field(default=0.1, metadata={"help": "without effect in pre-training"})
    decoder_activation_dropout: float = field(
        default=0.0, metadata={"help": "without effect in pre-training"}
    )
    max_target_positions: int = field(default=2048, metadata={"help": "without effect in pre-training"})
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "without effect in pre-training"}
    )
    no_scale_embedding: bool = field(default=True, metadata={"help": "without effect in pre-training"})


@dataclass
class AVHubertConfig(MaskedEncoderConfig, ClusterHeadConfig, UnusedKeys):
    """AV-HuBERT's keys; names and defaults are its own."""

    resnet_weights: Optional[str] = field(
        default=None,
        metadata={"help": "not supported: start from a checkpoint by checkpoint.finetune_from_model"},
    )
    count_padding: bool = field(
        default=False,
        metadata={
            "help": "padding counts in the features penalty and in the ResNet's batch norms, as in "
            "AV-HuBERT; slower [ours]"
        },
    )
    mask_channel_prob: float = field(
        default=0.0, metadata={"help": "masking of channels: not supported (masking_type=input ignores it)"}
    )
    mask_channel_length: int = field(default=10, metadata={"help": "masking of channels: not supported"})
    mask_channel_selection: str = field(
        default="static", metadata={"help": "masking of channels: not supported"}
    )
    mask_channel_other: float = field(default=0.0, metadata={"help": "masking of channels: not supported"})
    no_mask_channel_overlap: bool = field(
        default=False, metadata={"help": "masking of channels: not supported"}
    )
    mask_channel_min_space: int = field(default=1, metadata={"help": "masking of channels: not supported"})


@register_model("av_hubert", dataclass=AVHubertConfig)
class AVHubertModel(ClusterHead, MaskedAudioVisualEncoder):
    """Masked encoder and cluster head.

    Args:
        classes: dictionary size of each label set.
    """

    cfg: AVHubertConfig

    def __init__(self, cfg: AVHubertConfig, classes: list[int]) -> None:
        super().__init__(cfg)
        self.add_cluster_head(cfg, cfg.encoder_embed_dim, classes)

    @classmethod
    def build_model(cls, cfg: AVHubertConfig, task: Any = None) -> "AVHubertModel":
        classes = label_classes(task)
        check_supported(cfg, training=task.starts_from_pretrained)
        return cls(cfg, classes)

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any] | None = None,
        frame_index: Tensor | None = None,
        target_list: Sequence[Tensor] = (),
        mask: bool = True,
        features_only: bool = False,
        output_layer: int | None = None,
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the clusters of all real frames.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` before masking.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.
            target_list: int64 ``[B, T]`` for each label set.
            features_only: for callers of AV-HuBERT; return :meth:`features` instead, of which ``mask`` and
                ``output_layer`` are arguments.

        Returns:
            ``logit_m_list`` and ``logit_u_list``: float32 ``[N, V]`` on masked and on other frames, for each
            label set; ``target_m_list``, ``target_u_list``: int64 ``[N]``; ``features_pen``: scalar.

        Raises:
            ValueError: masks or frame_index are missing.
        """
        if features_only:
            return self.features(source, padding_mask, mask, output_layer)
        if masks is None or frame_index is None:
            raise ValueError(
                "masks and frame_index come from the data pipeline; for features alone, call "
                "extract_features, or pass features_only=True"
            )
        if self.cfg.count_padding:
            frame_index = torch.arange(padding_mask.numel(), device=padding_mask.device)
        features, _ = self.student_features(source, padding_mask, masks, frame_index)
        x, penalty = self.encode_student(features, padding_mask, masks, frame_index)
        return {**self.masked_units(x, target_list, masks), "features_pen": penalty}

    def features(
        self, source: Source, padding_mask: Tensor | None, mask: bool, output_layer: int | None
    ) -> dict[str, Any]:
        """``x`` and ``features`` ``[B, T, C]``, behind and before the Transformer, and ``padding_mask``; see
        :meth:`extract_features`.

        Raises:
            ValueError: a stream is absent.
        """
        if source.get("audio") is None or source.get("video") is None:
            raise ValueError("features_only needs audio and video; extract_finetune takes one of them, too")
        fused, _ = self.extract_features(source, padding_mask, mask, ret_conv=True)
        x = self.encode_fused(fused, padding_mask, output_layer)
        return {"x": x, "padding_mask": padding_mask, "features": fused}


def check_supported(cfg: AVHubertConfig, training: bool) -> None:
    """Name settings of training that are not supported.  A model that is only read was trained with them
    elsewhere and needs them no more: that costs a warning.

    Raises:
        ValueError: the model is to be trained, and a setting would be ignored that changes what is learned.
    """
    if cfg.mask_channel_prob > 0:
        if str(cfg.masking_type) == "input":
            logger.info("model.mask_channel_prob has no effect with masking_type=input, as in AV-HuBERT")
        else:
            complain("model.mask_channel_prob: channels cannot be masked here; set it to 0", training)
    if cfg.resnet_weights:
        complain(
            "model.resnet_weights: the visual front-end starts at random here; set it to null, or start "
            "from a whole checkpoint by checkpoint.finetune_from_model",
            training,
        )


def complain(text: str, training: bool) -> None:
    if training:
        raise ValueError(text)
    logger.warning("for training that goes on: %s", text)
