"""AV-HuBERT: masked multimodal cluster prediction (Shi et al., ICLR 2022, arXiv 2201.02184).

The student predicts the cluster id of every masked frame from masked audio and video, one of which may be
dropped.  The clusters come from MFCC at first, then from the model of the previous iteration (`av-ssl
targets`).  With noise on the student's audio it is robust AV-HuBERT (Shi et al., Interspeech 2022, arXiv
2201.01763).

    corrupted clip -> fused encoder -> cluster head -> logits; target: cluster ids on disk (`.km`)
    loss: cross-entropy on masked frames + feature penalty (section 3.2)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, List, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.models import register_model
from torch import Tensor

from av_ssl.compat.keys import accepts_without_effect, option
from av_ssl.methods.criterion import (
    BITS,
    FeaturePenaltyConfig,
    Logs,
    MeanCriterion,
    log_means,
    logged,
    penalty_weight,
)
from av_ssl.methods.encoder_model import Source
from av_ssl.methods.fused_encoder import MaskedAudioVisualEncoder, MaskedEncoderConfig
from av_ssl.methods.masked_units import (
    CLUSTER_HEAD_TENSORS,
    ClusterHead,
    ClusterHeadConfig,
    frame_counts,
    label_classes,
    masked_unit_log,
    masked_unit_losses,
    reduce_masked_unit_metrics,
)

logger = logging.getLogger(__name__)


# -- configuration -------------------------------------------------------------------------------------------


@dataclass
@accepts_without_effect(
    "key of AV-HuBERT's files, without effect in pre-training",
    label_rate=None,
    input_modality=None,
    extractor_mode="default",
    conv_feature_layers=None,
    conv_bias=False,
    latent_temp=None,
    dropout_features=0.0,
    skip_masked=False,
    skip_nomask=False,
    wav_input=False,
    decoder_embed_dim=768,
    decoder_ffn_embed_dim=3072,
    decoder_layers=6,
    decoder_layerdrop=0.0,
    decoder_attention_heads=4,
    decoder_learned_pos=False,
    decoder_normalize_before=False,
    no_token_positional_embeddings=False,
    decoder_dropout=0.1,
    decoder_attention_dropout=0.1,
    decoder_activation_dropout=0.0,
    max_target_positions=2048,
    share_decoder_input_output_embed=False,
    no_scale_embedding=True,
)
@accepts_without_effect(
    "masking of channels: not supported",
    mask_channel_length=10,
    mask_channel_selection="static",
    mask_channel_other=0.0,
    no_mask_channel_overlap=False,
    mask_channel_min_space=1,
)
class UnusedKeys(FairseqDataclass):
    """Keys of AV-HuBERT's YAML files and checkpoints that have no effect here."""


@dataclass
class AVHubertConfig(MaskedEncoderConfig, ClusterHeadConfig, UnusedKeys):
    """AV-HuBERT's keys; names and defaults are its own."""

    resnet_weights: Optional[str] = option(None, "not supported; see checkpoint.finetune_from_model")
    count_padding: bool = option(False, "padding counts in penalty and batch norms, as in AV-HuBERT [ours]")
    mask_channel_prob: float = option(0.0, "not supported (masking_type=input ignores it)")


# -- model ---------------------------------------------------------------------------------------------------


@register_model("av_hubert", dataclass=AVHubertConfig)
class AVHubertModel(ClusterHead, MaskedAudioVisualEncoder):
    """Masked encoder and cluster head; ``classes`` are the dictionary sizes of the label sets."""

    cfg: AVHubertConfig
    pretraining_only = ("mask_emb", *CLUSTER_HEAD_TENSORS)

    def __init__(self, cfg: AVHubertConfig, classes: list[int]) -> None:
        super().__init__(cfg)
        self.add_cluster_head(cfg, cfg.encoder_embed_dim, classes)

    @classmethod
    def build_model(cls, cfg: AVHubertConfig, task: Any = None) -> "AVHubertModel":
        classes = label_classes(task)
        check_supported(cfg, training=task.for_training)
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
            features_only, mask, output_layer: for callers of AV-HuBERT: return :meth:`features` instead.

        Returns:
            ``logit_m_list`` and ``logit_u_list``: float32 ``[N, V]`` on masked and on other frames, for each
            label set; ``target_m_list``, ``target_u_list``: int64 ``[N]``; ``features_pen``: scalar.
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
        """``x`` and ``features`` ``[B, T, C]``, after and before the Transformer, and ``padding_mask``."""
        if source.get("audio") is None or source.get("video") is None:
            raise ValueError("features_only needs audio and video; for one of them, call extract_finetune")
        fused, _ = self.extract_features(source, padding_mask, mask, ret_conv=True)
        x = self.run_transformer(fused, padding_mask, output_layer)
        return {"x": x, "padding_mask": padding_mask, "features": fused}


def check_supported(cfg: AVHubertConfig, training: bool) -> None:
    """Refuse settings of training that are not supported; a model that is only loaded causes a warning."""
    if cfg.mask_channel_prob > 0:
        if str(cfg.masking_type) == "input":
            logger.info("model.mask_channel_prob has no effect with masking_type=input, as in AV-HuBERT")
        else:
            complain("model.mask_channel_prob: channels cannot be masked here; set it to 0", training)
    if cfg.resnet_weights:
        complain(
            "model.resnet_weights: the visual front-end starts at random here; set it to null, or start "
            "from a checkpoint by checkpoint.finetune_from_model",
            training,
        )


def complain(text: str, training: bool) -> None:
    if training:
        raise ValueError(text)
    logger.warning("in case training is continued: %s", text)


# -- criterion -----------------------------------------------------------------------------------------------

EXTRA = "extra_"
LOSSES = ("loss", "loss_features_pen")


@dataclass
class AVHubertCriterionConfig(FeaturePenaltyConfig):
    """Names and defaults are AV-HuBERT's."""

    pred_masked_weight: float = option(1.0, "weight of masked frames")
    pred_nomask_weight: float = option(0.0, "weight of the other frames")
    loss_weights: Optional[List[float]] = option(None, "one weight, of the mean squared fused feature")
    log_keys: List[str] = option([], "more entries of the model's output to log")


@register_criterion("av_hubert", dataclass=AVHubertCriterionConfig)
class AVHubertCriterion(MeanCriterion):
    """``w_m * sum_masked CE + w_u * sum_unmasked CE + w_pen * features_pen * N``.

    N, the sample size by which fairseq divides gradients, is the number of frames whose weight is not zero.
    """

    def __init__(self, cfg: AVHubertCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.penalty_weight = penalty_weight(cfg)
        self.weights = {"m": cfg.pred_masked_weight, "u": cfg.pred_nomask_weight}
        if not any(self.weights.values()):
            raise ValueError("criterion.pred_masked_weight and pred_nomask_weight are both 0")

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(target_list=sample["target_list"], **sample["net_input"])
        unknown = set(self.cfg.log_keys) - output.keys()
        if unknown:
            raise ValueError(f"criterion.log_keys names {sorted(unknown)}; the model gives {sorted(output)}")
        losses, counts = masked_unit_losses(output), frame_counts(output)
        sample_size = sum(count for part, count in counts.items() if self.weights[part] > 0)
        penalty = self.penalty_weight * output["features_pen"] * sample_size
        loss = penalty
        for part, weight in self.weights.items():
            if weight:  # 0 would cost a backward pass; the part is logged all the same
                loss = loss + weight * losses[part].sum()
        extra = {EXTRA + key: output[key] * sample_size for key in self.cfg.log_keys}
        log = {
            **logged(sample, sample_size, loss=loss, loss_features_pen=penalty, **extra),
            **masked_unit_log(output, losses),
        }
        return loss, sample_size, log

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        """Means over the frames of all workers and micro-batches; losses in bits."""
        log_means(logging_outputs, LOSSES, unit=BITS)
        extra = {key.removeprefix(EXTRA) for log in logging_outputs for key in log if key.startswith(EXTRA)}
        log_means(logging_outputs, sorted(extra), prefix=EXTRA)
        reduce_masked_unit_metrics(logging_outputs)
