"""Cross-entropy of the classes of whole clips."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from av_ssl.criterions.class_counts import class_log, class_loss, reduce_class_log, reduce_clip_means


@dataclass
class AVClassificationCriterionConfig(FairseqDataclass):
    """Softmax cross-entropy; margins are the model's."""

    label_smoothing: float = field(default=0.0, metadata={"help": "share of a label given to all classes"})


@register_criterion("av_classification", dataclass=AVClassificationCriterionConfig)
class AVClassificationCriterion(FairseqCriterion):
    """Mean cross-entropy (nats) over clips; those of unknown class add nothing."""

    def __init__(self, cfg: AVClassificationCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        target = sample["target"]
        output = model(target=target, **sample["net_input"])
        loss = class_loss(output["margin_logits"], target, self.cfg.label_smoothing).sum()
        log = {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": len(target),
            **class_log(output["logits"], target, model.training),
        }
        return loss, len(target), log

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over clips of all workers and micro-batches."""
        reduce_clip_means(logging_outputs, ("loss",))
        reduce_class_log(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
