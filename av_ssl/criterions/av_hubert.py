"""Masked cluster prediction (AV-HuBERT, Shi et al., 2022, section 3.2)."""

import math
from dataclasses import dataclass, field
from typing import Any, List, Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from av_ssl.criterions.masked_units import (
    frame_counts,
    masked_unit_log,
    masked_unit_losses,
    reduce_masked_unit_metrics,
)

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
