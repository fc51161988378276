"""Keys of DistillAV (Zhang et al., Pattern Recognition 2025, arXiv 2502.05766), with origins of defaults.

DistillAV: distillation from speech foundation models (Zhang et al., Pattern Recognition 2025, arXiv
2502.05766).

A student sees masked, possibly noisy audio and video, one of them at times not at all; on every frame it
predicts what frozen teachers, which heard the clean speech, make of it: their vectors, and soft clusters of
them.  At hand were the paper's abstract and a description of its public code, not its body; the help of each
option names its origin.

DistillAV's losses in pre-training (arXiv 2502.05766).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from fairseq.models import register_model
from torch import Tensor

from av_ssl.data.dataset import DataNeeds
from av_ssl.data.masking import StreamMasking
from av_ssl.data.spans import SpanMask
from av_ssl.methods.fused_encoder import MASKINGS, MaskedAudioVisualEncoder, MaskedEncoderConfig, Source
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


@dataclass
class DistillAVConfig(MaskedEncoderConfig, TeachersConfig):
    """DistillAV Base, under AV-HuBERT's keys; ``[public code]``: as the authors published it."""

    layer_norm_first: bool = field(
        default=True, metadata={"help": "layer norm before each block [public code]"}
    )
    encoder_layerdrop: float = field(
        default=0.05, metadata={"help": "probability of skipping a layer [public code]"}
    )
    dropout_input: float = field(
        default=0.1, metadata={"help": "dropout of the fused features [public code]"}
    )
    feature_grad_mult: float = field(
        default=0.1, metadata={"help": "scale of the gradient into the front-ends [public code]"}
    )
    masking_type: MASKINGS = field(
        default="stream_feature",
        metadata={"help": "what is masked: each stream's features before fusion [public code]"},
    )
    mask_prob_audio: float = field(
        default=0.8, metadata={"help": "masked spans x length / frames [public code]"}
    )
    mask_prob_image: float = field(
        default=0.3, metadata={"help": "masked spans x length / frames [public code]"}
    )
    mask_length_image: int = field(
        default=5, metadata={"help": "frames of a masked video span [public code]"}
    )
    mask_equal_counts: bool = field(
        default=True,
        metadata={
            "help": "un-mask random frames until all clips of a batch have as many masked ones [public "
            "code]; false leaves long clips more [ours]"
        },
    )
    modality_dropout: float = field(
        default=0.5, metadata={"help": "probability that the student loses one stream [public code]"}
    )
    audio_dropout: float = field(default=0.5, metadata={"help": "that it is the audio [public code]"})
    loss_on: ChoiceEnum(["all", "union", "surviving"]) = field(  # type: ignore[valid-type]
        default="all",
        metadata={
            "help": "frames in the loss: all [public code], masked in either stream, or in the streams kept "
            "[ours]"
        },
    )
    final_dim: int = field(
        default=256, metadata={"help": "channels in which output and clusters are compared [public code]"}
    )
    logit_temp: float = field(default=0.1, metadata={"help": "cosines are divided by it [public code]"})
    balance: ChoiceEnum(["aligned_mtl", "none"]) = field(  # type: ignore[valid-type]
        default="aligned_mtl",
        metadata={
            "help": "how the gradients of the tasks meet at the encoder's output: by Aligned-MTL [public "
            "code], or as they are (none), with the weights of the criterion"
        },
    )
    gram: ChoiceEnum(["batch_sum", "full"]) = field(  # type: ignore[valid-type]
        default="batch_sum",
        metadata={
            "help": "Aligned-MTL compares gradients that are summed over the clips of a batch [public code], "
            "or all of them (full) [ours]"
        },
    )


@register_model("distillav", dataclass=DistillAVConfig)
class DistillAVModel(MaskedAudioVisualEncoder):
    """Student and heads; ``teacher_heads.*`` and the mask embeddings serve pre-training alone.

    The teachers are no part of it: they are opened when the first batch, or the data pipeline, asks for them.

    Raises:
        ValueError: no teachers are named.
    """

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
        self._targets: TeacherTargets | None = None

    @classmethod
    def build_model(cls, cfg: DistillAVConfig, task: Any = None) -> "DistillAVModel":
        return cls(cfg)

    @property
    def masking(self) -> StreamMasking:
        """What the data pipeline draws for each batch."""
        return self.stream_masking(loss_on=str(self.cfg.loss_on))

    def spans(self, probability: float, length: int) -> SpanMask:
        spans = super().spans(probability, length)
        return dataclasses.replace(spans, equal_counts=self.cfg.mask_equal_counts)

    # -- teachers --------------------------------------------------------------------------------------------

    @property
    def targets(self) -> TeacherTargets:
        if self._targets is None:
            self._targets = open_targets(self.cfg)
        return self._targets

    @property
    def data_needs(self) -> DataNeeds:
        """What the data pipeline adds to a batch; teachers take clean waveforms, not filterbanks."""
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
        """Predict the targets of all teachers on the frames that count.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` as the student hears and sees them
                before masking; ``waveform`` int16 ``[B, 640 T]``, clean, for teachers that run online.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.
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


MEANS = ("loss", "features_pen")
WEIGHTS, WEIGHED = "task_weights", "weighed_frames"


@dataclass
class DistillAVCriterionConfig(FairseqDataclass):
    """Weights of the terms; 1 everywhere in the public code, where Aligned-MTL balances them."""

    lambda_regression: float = field(default=1.0, metadata={"help": "weight of the regressions; 0: none"})
    lambda_clusters: float = field(default=1.0, metadata={"help": "weight of the soft clusters; 0: none"})
    features_pen_weight: float = field(
        default=10.0, metadata={"help": "weight of the mean squared fused feature, which is never balanced"}
    )


@register_criterion("distillav", dataclass=DistillAVCriterionConfig)
class DistillAVCriterion(FairseqCriterion):
    """``lambda_regression sum_k R_k + lambda_clusters sum_k C_k + features_pen_weight N pen``.

    R and C are sums over the targets of teacher k, see :mod:`av_ssl.methods.teacher_heads`;
    N, the sample size, is the number of video frames that count for the teacher with most of them, so a
    teacher of 50 Hz has two summands a unit of N (as in the public code).
    """

    def __init__(self, cfg: DistillAVCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(**sample["net_input"])
        frames = max(index.numel() for index in sample["net_input"]["teachers"]["index"])
        losses = teacher_losses(output)
        penalty = output["features_pen"] * frames
        loss = self.weighted(losses) + self.cfg.features_pen_weight * penalty
        logging_output = {
            "loss": loss.detach(),
            "features_pen": penalty.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": frames,
            **teacher_log(output, losses),
        }
        if output["task_weights"] is not None:
            for number, weight in enumerate(output["task_weights"].tolist()):  # on the CPU already
                logging_output[f"{WEIGHTS}{number}"] = weight * frames
            logging_output[WEIGHED] = frames
        return loss, frames, logging_output

    def weighted(self, losses: list[TeacherLosses]) -> Tensor:
        """Sum over teachers."""
        terms = [
            self.cfg.lambda_regression * loss.regression + self.cfg.lambda_clusters * loss.clusters
            for loss in losses
        ]
        return torch.stack(terms).sum()

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over the frames, or the targets, of all workers and micro-batches."""
        log_means(logging_outputs, MEANS, "sample_size")
        # The first micro-batch of a training has no weights yet.
        weights = sorted({key for log in logging_outputs for key in log if key.startswith(WEIGHTS)})
        log_means(logging_outputs, weights, WEIGHED)
        reduce_teacher_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def log_means(logging_outputs: Sequence[Mapping[str, Any]], keys: Sequence[str], count: str) -> None:
    """Log sums of these names, divided by the sum of ``count``."""
    frames = max(1, sum(log.get(count, 0) for log in logging_outputs))
    for key in keys:
        total = sum(log.get(key, 0) for log in logging_outputs)
        metrics.log_scalar(key, torch.as_tensor(total / frames).item(), frames, round=4)
