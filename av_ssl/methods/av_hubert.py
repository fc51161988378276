"""AV-HuBERT: masked multimodal cluster prediction (Shi et al., ICLR 2022, arXiv 2201.02184).

The student predicts, from masked audio and video of which one may be missing, the cluster id of every masked
frame.  The clusters come from MFCC at first, then from the previous iteration's model (`av-ssl targets`).
With noise on the student's audio it is robust AV-HuBERT (Shi et al., 2022, arXiv 2201.01763).

Masked cluster prediction (AV-HuBERT, Shi et al., 2022, section 3.2).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, List, Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.models import register_model
from torch import Tensor

from av_ssl.methods.fused_encoder import MaskedAudioVisualEncoder, MaskedEncoderConfig, Source
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
    pretraining_only = ("mask_emb", *CLUSTER_HEAD_TENSORS)

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


EXTRA = "extra_"
LOSSES = ("loss", "loss_features_pen")


@dataclass
class AVHubertCriterionConfig(FairseqDataclass):
    """Names and defaults are AV-HuBERT's."""

    pred_masked_weight: float = field(default=1.0, metadata={"help": "weight of masked frames"})
    pred_nomask_weight: float = field(default=0.0, metadata={"help": "weight of the other frames"})
    loss_weights: Optional[List[float]] = field(
        default=None, metadata={"help": "weights of extra losses: one, of the mean squared feature"}
    )
    log_keys: List[str] = field(
        default_factory=list, metadata={"help": "more entries of the model's output to log"}
    )


@register_criterion("av_hubert", dataclass=AVHubertCriterionConfig)
class AVHubertCriterion(FairseqCriterion):
    """``w_m * sum_masked CE + w_u * sum_unmasked CE + w_pen * features_pen * N``.

    N, the sample size by which fairseq divides gradients, is the number of frames whose weight is not zero.
    """

    def __init__(self, cfg: AVHubertCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg
        weights = list(cfg.loss_weights or [0.0])
        if len(weights) != 1:
            raise ValueError(
                f"criterion.loss_weights has {len(weights)} entries; there is one extra loss, features_pen"
            )
        self.penalty_weight = weights[0]
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
        penalty = output["features_pen"] * sample_size
        loss = self.penalty_weight * penalty
        for part, weight in self.weights.items():
            if weight:  # 0 would cost a backward pass; the part is logged all the same
                loss = loss + weight * losses[part].sum()
        logging_output = {
            "loss": loss.detach(),
            "loss_features_pen": self.penalty_weight * penalty.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
            **masked_unit_log(output, losses),
            **{EXTRA + key: output[key].detach() * sample_size for key in self.cfg.log_keys},
        }
        return loss, sample_size, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over the frames of all workers and micro-batches; losses in bits."""
        size = max(1, sum(log.get("sample_size", 0) for log in logging_outputs))
        keys = {key for log in logging_outputs for key in log if key in LOSSES or key.startswith(EXTRA)}
        for key in sorted(keys):
            total = torch.as_tensor(sum(log.get(key, 0) for log in logging_outputs) / size).item()
            bits = math.log(2) if key in LOSSES else 1
            metrics.log_scalar(key.removeprefix(EXTRA), total / bits, size, round=3)
        reduce_masked_unit_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
