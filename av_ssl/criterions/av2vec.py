"""Masked latent feature regression (AV2vec, arXiv 2212.02782; the form of the loss is data2vec's), and with
cluster ids AV2vec-MLM's two losses."""

import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
import torch.nn.functional as F
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

OF_THE_TEACHER = ("target_var", "pred_var", "ema_decay")
MEANS = ("loss", "loss_regression", "features_pen", *OF_THE_TEACHER, "gradient_ratio")
"""What is logged as a mean over the frames of the loss."""


def regression_loss(
    prediction: Tensor, target: Tensor, beta: float = 0.0, scale: float | None = None
) -> Tensor:
    """Sum over frames of the scaled squared (or smooth-L1) distance.

    ``scale * sum_t ||p_t - y_t||^2``, and for ``beta > 0`` smooth-L1 in place of the square.

    Args:
        prediction, target: float32 ``[S, C]``.
        beta: where smooth-L1 turns from square to line; 0 is the plain square.
        scale: None for ``1 / sqrt(C)``.

    >>> import torch
    >>> round(regression_loss(torch.ones(3, 4), torch.zeros(3, 4)).item(), 3)
    6.0
    """
    if beta > 0:
        loss = F.smooth_l1_loss(prediction, target, reduction="sum", beta=beta)
    else:
        loss = F.mse_loss(prediction, target, reduction="sum")
    return loss * (1 / math.sqrt(prediction.size(-1)) if scale is None else scale)


def gradient_ratio(loss: Tensor, other: Tensor, x: Tensor) -> Tensor:
    """Norm of the gradient of ``loss`` at ``x``, divided by that of ``other``: what their weights should even
    out."""
    norms = [torch.autograd.grad(each, x, retain_graph=True)[0].float().norm() for each in (loss, other)]
    return norms[0] / norms[1].clamp(min=1e-12)


@dataclass
class AV2vecCriterionConfig(FairseqDataclass):
    """Weights of the terms; each term is a mean over its own frames."""

    lambda_reg: float = field(default=1.0, metadata={"help": "weight of the regression [ours]"})
    lambda_mlm: float = field(
        default=1.0, metadata={"help": "weight of cluster ids on the frames of the loss [ours]"}
    )
    lambda_mlm_unmasked: float = field(
        default=0.0, metadata={"help": "weight of cluster ids on the other frames [ours]"}
    )
    loss_beta: float = field(
        default=0.0, metadata={"help": "smooth-L1 threshold; 0: squared error [data2vec]"}
    )
    loss_scale: Optional[float] = field(default=None, metadata={"help": "null: 1/sqrt(C) [data2vec]"})
    features_pen_weight: float = field(
        default=10.0, metadata={"help": "weight of the mean squared front-end feature (AV-HuBERT)"}
    )


@register_criterion("av2vec", dataclass=AV2vecCriterionConfig)
class AV2vecCriterion(FairseqCriterion):
    """``lambda_reg R/|S| + lambda_mlm M/|S| + lambda_mlm_unmasked U/|rest| + features_pen_weight pen``.

    R is the summed regression loss, M and U the summed cross-entropies of a model with ``use_mlm``, S the
    frames of the loss.  The sum is multiplied by |S|, and |S| is the sample size, so that fairseq's division
    by the sample size of all workers and micro-batches gives the mean over all their frames.
    """

    def __init__(self, cfg: AV2vecCriterionConfig, task: Any) -> None:
        super().__init__(task)
        self.cfg = cfg

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(target_list=sample.get("target_list", ()), **sample["net_input"])
        frames = sample["net_input"]["masks"]["loss_index"].numel()
        penalty = output["features_pen"] * frames
        loss = self.cfg.features_pen_weight * penalty
        logging_output = {
            "features_pen": penalty.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": frames,
        }
        if "prediction" in output:
            regression = regression_loss(
                output["prediction"], output["target"], self.cfg.loss_beta, self.cfg.loss_scale
            )
            loss = loss + self.cfg.lambda_reg * regression
            logging_output["loss_regression"] = regression.detach()
            logging_output.update({key: output[key] * frames for key in OF_THE_TEACHER})
        if "logit_m_list" in output:
            losses = masked_unit_losses(output)
            loss = loss + self.masked_unit_loss(losses, frame_counts(output)) * frames
            logging_output.update(masked_unit_log(output, losses))
        if "encoder_output" in output:
            ratio = gradient_ratio(losses["m"].sum(), regression, output["encoder_output"])
            logging_output["gradient_ratio"] = ratio * frames
        logging_output["loss"] = loss.detach()
        return loss, frames, logging_output

    def masked_unit_loss(self, losses: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        """Weighted sum of both cross-entropies, each divided by its own number of frames."""
        weights = {"m": self.cfg.lambda_mlm}
        if self.cfg.lambda_mlm_unmasked:  # a weight of 0 would cost a backward pass
            weights["u"] = self.cfg.lambda_mlm_unmasked
        means = [weight * losses[part].sum() / max(1, counts[part]) for part, weight in weights.items()]
        return torch.stack(means).sum()

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Frame-weighted means over workers and micro-batches; the cross-entropies alone in bits."""
        frames = max(1, sum(log.get("sample_size", 0) for log in logging_outputs))
        for key in MEANS:
            if any(key in log for log in logging_outputs):
                total = sum(log.get(key, 0) for log in logging_outputs)
                metrics.log_scalar(key, torch.as_tensor(total / frames).item(), frames, round=4)
        reduce_masked_unit_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
