"""The losses of an audio student with an audio-visual teacher (Hajavi and Etemad, arXiv 2302.02845).

That embeddings of the encoder and, in the sequential setting, of the aggregator train the student is in the
paper's abstract; distances and weights are [ours].  Soft labels are what it compares itself with.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor

from av_ssl.criterions.class_counts import class_log, class_loss, reduce_class_log, reduce_clip_means
from av_ssl.criterions.embedding_distance import DISTANCES, cosine, embedding_distance, mean_over_segments
from av_ssl.criterions.soft_labels import SOFT_LABELS, soft_label_loss

MEANS = ("loss", "loss_enc", "loss_agg", "loss_distill", "loss_class", "loss_soft", "cos_enc", "cos_agg")
"""What is logged as a mean over clips."""


@dataclass
class LupiCriterionConfig(FairseqDataclass):
    """Weights of the terms, each a mean over clips.  All [ours]."""

    alpha: float = field(default=1.0, metadata={"help": "weight of the encoder's embedding"})
    beta: float = field(
        default=1.0, metadata={"help": "weight of the aggregator's embedding, where there is an aggregator"}
    )
    gamma: float = field(default=1.0, metadata={"help": "weight of the labels, hard and soft"})
    distance: ChoiceEnum(DISTANCES) = field(  # type: ignore[valid-type]
        default="mse", metadata={"help": "between embeddings of student and teacher"}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "share of a label given to all classes"})
    soft_labels: ChoiceEnum(SOFT_LABELS) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "learn from the teacher's class probabilities: generalised distillation as its paper or "
            "its code has it, or Hinton's; with alpha=beta=0 and model.grad_policy=joint it is the baseline"
        },
    )
    imitation: float = field(default=0.5, metadata={"help": "share of soft labels against hard ones, 0 to 1"})
    temperature: float = field(default=2.0, metadata={"help": "by which logits are softened"})


@register_criterion("lupi", dataclass=LupiCriterionConfig)
class LupiCriterion(FairseqCriterion):
    """``alpha d(enc) + beta d(agg) + gamma [(1 - imitation) CE + imitation soft]``, a mean over clips.

    d(enc) is a mean over the clip's segments.  Without soft labels the bracket is the cross-entropy alone; a
    student without header (phase embed) has none, one without teacher (phase head) no distances.
    """

    def __init__(self, cfg: LupiCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg
        if not 0 <= cfg.imitation <= 1 or cfg.temperature <= 0:
            raise ValueError(
                f"criterion.imitation={cfg.imitation} is a share from 0 to 1, "
                f"criterion.temperature={cfg.temperature} is above 0"
            )

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        target = sample["target"]
        output = model(target=target, **sample["net_input"])
        terms, log = self.embedding_terms(output)
        if "logits" in output:
            terms.append(self.cfg.gamma * self.label_loss(output, target, log))
            log.update(class_log(output["logits"], target, model.training))
        loss = torch.stack(terms).sum()
        log["loss"] = loss.detach()
        counts = {
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": len(target),
        }
        return loss, len(target), {**log, **counts}

    def embedding_terms(self, output: dict[str, Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
        """Weighted distances to the teacher's embeddings, summed over clips, and what is logged of them."""
        terms: list[Tensor] = []
        log: dict[str, Any] = {}
        if "teacher_enc" not in output:
            return terms, log
        cfg, distance = self.cfg, str(self.cfg.distance)
        student, teacher, empty = output.get("hint", output["enc"]), output["teacher_enc"], output["empty"]
        encoder = mean_over_segments(embedding_distance(student, teacher, distance), empty).sum()
        terms.append(cfg.alpha * encoder)
        log["loss_enc"] = encoder.detach()
        log["cos_enc"] = mean_over_segments(cosine(student, teacher).detach(), empty).sum()
        if "teacher_agg" in output:
            aggregated = embedding_distance(output["agg"], output["teacher_agg"], distance).sum()
            terms.append(cfg.beta * aggregated)
            log["loss_agg"] = aggregated.detach()
            log["cos_agg"] = cosine(output["agg"], output["teacher_agg"]).detach().sum()
        log["loss_distill"] = torch.stack(terms).detach().sum()
        return terms, log

    def label_loss(self, output: dict[str, Tensor], target: Tensor, log: dict[str, Any]) -> Tensor:
        """What labels and the teacher's class probabilities say, summed over clips."""
        hard = class_loss(output["margin_logits"], target, self.cfg.label_smoothing).sum()
        log["loss_class"] = hard.detach()
        variant = str(self.cfg.soft_labels)
        if variant == "none":
            return hard
        if "teacher_logits" not in output:
            raise ValueError("criterion.soft_labels needs a teacher: set model.teacher_path")
        soft = soft_label_loss(
            output["logits"], output["teacher_logits"], self.cfg.temperature, variant
        ).sum()
        log["loss_soft"] = soft.detach()
        return (1 - self.cfg.imitation) * hard + self.cfg.imitation * soft

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over clips of all workers and micro-batches."""
        reduce_clip_means(logging_outputs, MEANS)
        reduce_class_log(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
