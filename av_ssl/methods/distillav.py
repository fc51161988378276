"""DistillAV: distillation from speech foundation models (Zhang et al., Pattern Recognition 2025, arXiv
2502.05766).

The student receives masked, possibly noisy audio and video; at times one of them is dropped.  On every frame
it predicts the outputs of frozen teachers for the clean speech: their vectors, and soft clusters of them.

    student:  corrupted clip -> fused encoder -> a head for each teacher -> vectors and cluster logits
    teachers: clean audio -> frozen speech models (on disk or online) -> vectors and soft clusters
    loss:     regression + soft cross-entropy of each teacher, gradients balanced by Aligned-MTL,
              + feature penalty

The paper's abstract and a description of its public code were available, not its body; the help of each
option names its origin.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor

from av_ssl.compat.keys import option
from av_ssl.data.dataset import DataNeeds
from av_ssl.data.masking import LOSS_FRAMES, StreamMasking
from av_ssl.data.spans import SpanMask
from av_ssl.methods.criterion import (
    FeaturePenaltyConfig,
    Logs,
    MeanCriterion,
    log_means,
    logged,
    penalty_weight,
)
from av_ssl.methods.encoder_model import Source
from av_ssl.methods.fused_encoder import MaskedAudioVisualEncoder, RecipeConfig
from av_ssl.methods.teacher_heads import (
    HEADS_PREFIX,
    TeacherLosses,
    TeachersConfig,
    make_heads,
    open_targets,
    reduce_teacher_metrics,
    teacher_log,
    teacher_losses,
)
from av_ssl.modules.aligned_mtl import GradientBalancer
from av_ssl.targets.teacher_targets import TeacherTargets

# -- configuration -------------------------------------------------------------------------------------------


@dataclass
class DistillAVConfig(RecipeConfig, TeachersConfig):
    """DistillAV Base; masking and encoder as in :class:`~av_ssl.methods.fused_encoder.RecipeConfig`."""

    mask_equal_counts: bool = option(True, "equally many masked frames in all clips [public code]")
    loss_on: ChoiceEnum(list(LOSS_FRAMES)) = option(  # type: ignore[valid-type]
        "all", "frames in the loss: all [public code], masked in either stream, or in the streams kept [ours]"
    )
    logit_temp: float = option(0.1, "cosines are divided by it [public code]")
    balance: ChoiceEnum(["aligned_mtl", "none"]) = option(  # type: ignore[valid-type]
        "aligned_mtl", "gradients at the encoder's output: balanced [public code], or a plain sum (none)"
    )
    gram: ChoiceEnum(["batch_sum", "full"]) = option(  # type: ignore[valid-type]
        "batch_sum", "Aligned-MTL's gradients: summed over clips [public code], or all (full) [ours]"
    )


# -- model ---------------------------------------------------------------------------------------------------


@register_model("distillav", dataclass=DistillAVConfig)
class DistillAVModel(MaskedAudioVisualEncoder):
    """Student and heads. The teachers are no part of the module; they are opened when they are needed."""

    cfg: DistillAVConfig
    pretraining_only = ("mask_emb", HEADS_PREFIX)

    def __init__(self, cfg: DistillAVConfig) -> None:
        super().__init__(cfg)
        if not cfg.teacher_shapes:
            raise ValueError(
                "model.teachers is empty: name the folders of teachers that `av-ssl targets teacher` makes"
            )
        sizes = {"final_dim": cfg.final_dim, "logit_temp": cfg.logit_temp}
        self.teacher_heads = make_heads(cfg.encoder_embed_dim, cfg.teacher_shapes, sizes)
        aligned = str(cfg.balance) == "aligned_mtl"
        self.balancer = GradientBalancer(str(cfg.gram)) if aligned else None

    @classmethod
    def build_model(cls, cfg: DistillAVConfig, task: Any = None) -> "DistillAVModel":
        return cls(cfg)

    @property
    def masking(self) -> StreamMasking:
        return self.stream_masking(loss_on=str(self.cfg.loss_on))

    def spans(self, probability: float, length: int) -> SpanMask:
        spans = super().spans(probability, length)
        return dataclasses.replace(spans, equal_counts=self.cfg.mask_equal_counts)

    # -- teachers --------------------------------------------------------------------------------------------

    @cached_property
    def targets(self) -> TeacherTargets:
        """The teachers and what their folders hold."""
        return open_targets(self.cfg)

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(
            masking=self.masking, teachers=lambda: self.targets, teacher_shapes=self.cfg.teacher_shapes
        )

    # -- student ---------------------------------------------------------------------------------------------

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any],
        frame_index: Tensor,
        teachers: Mapping[str, Any],
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the targets of all teachers on the frames of the loss.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]``, the student's input before masking;
                ``waveform`` int16 ``[B, 640 T]``, clean, for teachers that run online.
            padding_mask, masks, frame_index: see :class:`~av_ssl.methods.av_hubert.AVHubertModel`.
            teachers: see :class:`av_ssl.data.teacher_batch.TeacherBatch`.

        Returns:
            ``features_pen`` (mean square of the student's features); ``predictions`` and ``targets``, one
            :class:`~av_ssl.methods.teacher_heads.Prediction` and
            :class:`~av_ssl.targets.teacher_targets.Target` for each teacher; ``task_weights``, those of the
            previous backward pass (float64 ``[2 K]``, regression and clusters of each teacher in turn; None
            without balancing or before the first).
        """
        targets = self.targets(source, teachers)
        student, _ = self.student_features(source, padding_mask, masks, frame_index)
        x, penalty = self.encode_student(student, padding_mask, masks, frame_index)
        balancer = self.balancer if self.training else None
        return {
            "features_pen": penalty,
            "predictions": self.teacher_heads.predict(x, teachers["index"], balancer),
            "targets": targets,
            "task_weights": None if balancer is None else balancer.weights,
        }


# -- criterion -----------------------------------------------------------------------------------------------

MEANS = ("loss", "features_pen")
TASK_WEIGHT, WEIGHTED_FRAMES = "task_weights", "weighted_frames"


@dataclass
class DistillAVCriterionConfig(FeaturePenaltyConfig):
    """Weights of the terms; 1 everywhere in the public code, where Aligned-MTL balances them.

    The feature penalty is never balanced.
    """

    regression_weight: float = option(1.0, "weight of the regressions; 0: none")
    cluster_weight: float = option(1.0, "weight of the soft clusters; 0: none")


@register_criterion("distillav", dataclass=DistillAVCriterionConfig)
class DistillAVCriterion(MeanCriterion):
    """``regression_weight sum_k R_k + cluster_weight sum_k C_k + w_pen N pen``, a mean over frames.

    R and C are sums over the targets of teacher k, see :mod:`av_ssl.methods.teacher_heads`; ``w_pen`` is the
    weight in ``loss_weights``.  N, the sample size, is the largest number of video frames in a teacher's
    loss, so a teacher of 50 Hz has two targets for each unit of N (as in the public code).
    """

    def __init__(self, cfg: DistillAVCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.penalty_weight = penalty_weight(cfg)

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(**sample["net_input"])
        frames = max(index.numel() for index in sample["net_input"]["teachers"]["index"])
        losses = teacher_losses(output)
        penalty = output["features_pen"] * frames
        loss = self.weighted(losses) + self.penalty_weight * penalty
        log = {**logged(sample, frames, loss=loss, features_pen=penalty), **teacher_log(output, losses)}
        if output["task_weights"] is not None:
            for number, weight in enumerate(output["task_weights"].tolist()):  # on the CPU already
                log[f"{TASK_WEIGHT}{number}"] = weight * frames
            log[WEIGHTED_FRAMES] = frames
        return loss, frames, log

    def weighted(self, losses: list[TeacherLosses]) -> Tensor:
        weights = self.cfg.regression_weight, self.cfg.cluster_weight
        return torch.stack(
            [weights[0] * each.regression + weights[1] * each.clusters for each in losses]
        ).sum()

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        """Means over the frames, or the targets, of all workers and micro-batches."""
        log_means(logging_outputs, MEANS)
        # The first micro-batch of a training has no weights yet.
        weights = sorted({key for log in logging_outputs for key in log if key.startswith(TASK_WEIGHT)})
        log_means(logging_outputs, weights, WEIGHTED_FRAMES)
        reduce_teacher_metrics(logging_outputs)
