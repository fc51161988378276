"""DistillAV's losses in pre-training (arXiv 2502.05766)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from av_ssl.criterions.representation_distillation import (
    TeacherLosses,
    reduce_teacher_metrics,
    teacher_log,
    teacher_losses,
)

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

    R and C are sums over the targets of teacher k, see :mod:`av_ssl.criterions.representation_distillation`;
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
