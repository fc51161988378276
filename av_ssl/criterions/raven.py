"""RAVEn's losses: negative cosine similarity of predictions and teachers' outputs (arXiv 2212.06246)."""

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the cosine similarity of each frame's pair of vectors: ``[N, D]``, ``[N, D]`` -> ``[N]``.

    >>> import torch
    >>> x = torch.tensor([[3.0, 4.0]])
    >>> negative_cosine(x, 2 * x).item(), negative_cosine(x, -x).item()
    (-1.0, 1.0)
    """
    return -F.cosine_similarity(prediction.float(), target.float(), dim=-1, eps=1e-8)


@dataclass
class RavenCriterionConfig(FairseqDataclass):
    """Weights of the terms; a term whose predictor the model lacks has none."""

    weight_va: Optional[float] = field(
        default=None,
        metadata={"help": "weight of video predicting audio, on all frames; null: the model's, 1"},
    )
    weight_av: Optional[float] = field(
        default=None,
        metadata={"help": "weight of audio predicting video, on all frames; null: the model's, 1"},
    )
    weight_aa: Optional[float] = field(
        default=None,
        metadata={
            "help": "weight of audio predicting audio, on masked frames; null: the model's, RAVEn's 1 or "
            "BRAVEn's 2"
        },
    )
    weight_vv: Optional[float] = field(
        default=None,
        metadata={
            "help": "weight of video predicting video, on masked frames (model.within_video); null: the "
            "model's, 1"
        },
    )


@register_criterion("raven", dataclass=RavenCriterionConfig)
class RavenCriterion(FairseqCriterion):
    """``sum_p weight_p mean_frames(-cos)`` over the pairs p of students and teachers.

    Each term is the mean over its frames of a micro-batch, and the sample size is 1: over workers and
    accumulated micro-batches fairseq averages the means, as the authors' distributed training does.
    """

    def __init__(self, cfg: RavenCriterionConfig, task: Any) -> None:
        super().__init__(task)
        weights = {pair: getattr(cfg, f"weight_{pair}") for pair in ("va", "av", "aa", "vv")}
        self.weights = {pair: weight for pair, weight in weights.items() if weight is not None}

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(**sample["net_input"])
        terms = {
            pair: negative_cosine(prediction, target).mean()
            for pair, (prediction, target) in output["pairs"].items()
        }
        weights = {**output["weights"], **self.weights}
        loss = torch.stack([weights[pair] * term for pair, term in terms.items()]).sum()
        logging_output = {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": 1,
        }
        logging_output.update({f"loss_{pair}": term.detach() for pair, term in terms.items()})
        for stream, monitor in output["monitors"].items():
            logging_output.update({f"{stream}_target_{name}": x for name, x in monitor._asdict().items()})
        return loss, 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over workers and micro-batches."""
        batches = max(1, sum(log.get("sample_size", 0) for log in logging_outputs))
        for key in logging_outputs[0] if logging_outputs else ():
            if key.startswith("loss") or "_target_" in key:
                total = sum(log.get(key, 0) for log in logging_outputs)
                metrics.log_scalar(key, torch.as_tensor(total / batches).item(), batches, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


@register_criterion("braven", dataclass=RavenCriterionConfig)
class BravenCriterion(RavenCriterion):
    """The same: a model of either name brings its own weights."""
