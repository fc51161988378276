"""AV-HuBERT: masked multimodal cluster prediction (Shi et al., ICLR 2022, arXiv 2201.02184).

The student predicts, from masked audio and video of which one may be missing, the cluster id of every masked
frame.  The clusters come from MFCC at first, then from the previous iteration's model (`av-ssl targets`).
With noise on the student's audio it is robust AV-HuBERT (Shi et al., 2022, arXiv 2201.01763).
"""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.models import register_model
from torch import Tensor

from av_ssl.models.av_encoder import Source
from av_ssl.models.cluster_head import ClusterHead, ClusterHeadConfig, label_classes
from av_ssl.models.masked_encoder import MaskedAudioVisualEncoder, MaskedEncoderConfig


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
    mask_channel_prob: float = field(default=0.0, metadata={"help": "masking of channels: not supported"})
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

    def __init__(self, cfg: AVHubertConfig, classes: list[int]) -> None:
        super().__init__(cfg)
        refuse_unsupported(cfg)
        self.add_cluster_head(cfg, cfg.encoder_embed_dim, classes)

    @classmethod
    def build_model(cls, cfg: AVHubertConfig, task: Any = None) -> "AVHubertModel":
        return cls(cfg, label_classes(task))

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any],
        frame_index: Tensor,
        target_list: list[Tensor],
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the clusters of all real frames.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` before masking.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.
            target_list: int64 ``[B, T]`` for each label set.

        Returns:
            ``logit_m_list`` and ``logit_u_list``: float32 ``[N, V]`` on masked and on other frames, for each
            label set; ``target_m_list``, ``target_u_list``: int64 ``[N]``; ``features_pen``: scalar.
        """
        features, _ = self.student_features(source, padding_mask, masks, frame_index)
        x, penalty = self.encode_student(features, padding_mask, masks, frame_index)
        return {**self.masked_units(x, target_list, masks), "features_pen": penalty}

    def remove_pretraining_modules(self) -> None:
        """Drop what only pre-training needs."""
        del self.final_proj, self.label_embs_concat
        self.target_glu = None


def refuse_unsupported(cfg: AVHubertConfig) -> None:
    """Say so when a setting would be ignored that changes what is trained."""
    if cfg.mask_channel_prob > 0:
        raise ValueError("model.mask_channel_prob: channels cannot be masked here; set it to 0")
    if cfg.resnet_weights:
        raise ValueError(
            "model.resnet_weights: the visual front-end starts at random here; set it to null, or start "
            "from a whole checkpoint by checkpoint.finetune_from_model"
        )
