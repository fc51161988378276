"""A recognition loss plus the distance from speech teachers.

DistillAV's abstract states that it distils in fine-tuning as well (arXiv 2502.05766); formula, weight and
schedule are not public, so those here are our choice [ours].
"""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq import criterions
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from omegaconf import II
from torch import Tensor

from av_ssl.compat.keys import option
from av_ssl.errors import DataError
from av_ssl.methods.criterion import Logs, log_means
from av_ssl.methods.teacher_heads import reduce_teacher_metrics, teacher_log, teacher_losses

LOSS, WEIGHT, CLIPS = "distillation_loss", "distillation_weight", "distilled_clips"


@dataclass
class DistillationFineTuningConfig(FairseqDataclass):
    """The recognition loss, and the weight of distillation over the updates."""

    recognition: Any = option(None, "the recognition loss and its keys, e.g. {_name: ctc}")
    distillation_weight: float = option(0.1, "weight of the distillation once the encoder is trained")
    final_weight: Optional[float] = option(None, "weight at max_update, approached linearly; null: the same")
    warmup_updates: int = option(0, "updates in which the weight rises from 0, after the encoder is unfrozen")
    max_update: int = option(II("optimization.max_update"), "updates of the whole training")


class Recorder:
    """A model that keeps its last output; everything else is the model's own."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.output: Any = None

    def __call__(self, **net_input: Any) -> Any:
        self.output = self.model(**net_input)
        return self.output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def distillation(self) -> dict[str, Any] | None:
        """Predictions and targets; None while the encoder is frozen, and for models without teachers."""
        output = self.output[1]["encoder_out"] if isinstance(self.output, tuple) else self.output
        found: dict[str, Any] | None = output.get("distillation")
        return found


@register_criterion("distillation_finetuning", dataclass=DistillationFineTuningConfig)
class DistillationFineTuning(FairseqCriterion):
    """``recognition + weight n (1/F) sum_k (R_k + C_k)``.

    R and C are the sums of :mod:`av_ssl.methods.teacher_heads` over the targets of teacher k, F the largest
    number of video frames in a teacher's loss, and n the sample size of the recognition loss, so that the
    second term is a mean over frames whatever the first one is divided by.  The gradients are simply added:
    aligning them would scale the recognition loss down to the weakest task.

    Only in training is the second term added.  In validation it is logged, and the logged ``loss`` is always
    the recognition loss, by which checkpoints are selected.
    """

    def __init__(self, cfg: Any, task: Any, recognition: FairseqCriterion) -> None:
        super().__init__(task)
        self.cfg = cfg
        self.recognition = recognition

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> "DistillationFineTuning":
        check_effect(cfg)
        recognition = criterions.build_criterion(cfg.recognition, task)

        class OfRecognition(cls):  # type: ignore[misc, valid-type]
            """fairseq calls ``reduce_metrics`` of the class, so the recognition loss must be known to it."""

            @staticmethod
            def reduce_metrics(logging_outputs: Logs) -> None:
                type(recognition).reduce_metrics(logging_outputs)
                log_means(logging_outputs, (LOSS, WEIGHT), CLIPS)
                reduce_teacher_metrics(logging_outputs)

            @staticmethod
            def logging_outputs_can_be_summed() -> bool:
                return bool(type(recognition).logging_outputs_can_be_summed())

        OfRecognition.__name__ = f"{cls.__name__}Of{type(recognition).__name__}"
        return OfRecognition(cfg, task, recognition)

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, Any, dict[str, Any]]:
        recorder = Recorder(model)
        loss, sample_size, log = self.recognition(recorder, sample, reduce)
        distilled = recorder.distillation
        if distilled is None:
            return loss, sample_size, log
        losses = teacher_losses(distilled)
        frames = max(index.numel() for index in sample["net_input"]["teachers"]["index"])
        mean = torch.stack([each.regression + each.clusters for each in losses]).sum() / max(1, frames)
        weight = self.weight(distilled["updates"], distilled["unfrozen_at"])
        clips = sample["nsentences"]
        log = {**log, LOSS: mean.detach() * clips, WEIGHT: weight * clips, CLIPS: clips}
        log.update(teacher_log(distilled, losses))
        if model.training:
            loss = loss + weight * sample_size * mean
        return loss, sample_size, log

    def weight(self, updates: int, unfrozen_at: int) -> float:
        """Weight after ``updates``, for an encoder that was unfrozen at update ``unfrozen_at``."""
        cfg, trained = self.cfg, updates - unfrozen_at
        final = cfg.distillation_weight if cfg.final_weight is None else cfg.final_weight
        share = min(1.0, trained / max(1, cfg.max_update - unfrozen_at))
        weight = cfg.distillation_weight + share * (final - cfg.distillation_weight)
        return float(weight * min(1.0, (trained + 1) / (cfg.warmup_updates + 1)))


def check_effect(cfg: Any) -> None:
    """Raise DataError when distillation would have no effect, or there is no recognition loss."""
    if not cfg.recognition or not cfg.recognition.get("_name"):
        raise DataError(
            "criterion.recognition is not set: name the recognition loss, e.g. "
            "criterion.recognition={_name: label_smoothed_cross_entropy}"
        )
    if not cfg.distillation_weight and not cfg.final_weight:
        raise DataError(
            "criterion.distillation_weight is 0, so distillation has no effect: raise it, or use "
            f"criterion._name={cfg.recognition._name}"
        )
    root = cfg._get_parent()
    model = root.get("model") if root is not None else None
    if model is None:
        return
    if not model.get("teachers"):
        raise DataError("model.teachers is empty, so distillation has no effect: name the teachers' folders")
    frozen, updates = model.get("freeze_finetune_updates") or 0, cfg.max_update
    if updates and frozen >= updates:
        raise DataError(
            f"model.freeze_finetune_updates={frozen} freezes the encoder in all of the {updates} updates, so "
            "distillation has no effect: lower it"
        )
