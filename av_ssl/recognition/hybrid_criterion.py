"""Weighted sum of CTC and label-smoothed cross-entropy (Watanabe et al., 2017).

The defaults are those of RAVEn's published configuration files (Haliassos et al., 2023, arXiv 2212.06246).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import editdistance
import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.utils import get_perplexity
from torch import Tensor

from av_ssl.data.text import BLANK

PER_CLIP = ("loss", "ctc_loss", "attention_loss")
"""What is logged as a mean over clips, in nats."""


@dataclass
class HybridCriterionConfig(FairseqDataclass):
    """The weight of the two terms."""

    ctc_weight: float = field(
        default=0.1, metadata={"help": "weight of CTC; that of the attention decoder is the rest"}
    )
    label_smoothing: float = field(
        default=0.1, metadata={"help": "probability shared out over all symbols but the right one"}
    )


@register_criterion("hybrid_ctc_attention", dataclass=HybridCriterionConfig)
class HybridCriterion(FairseqCriterion):
    """``ctc_weight CTC + (1 - ctc_weight) CE``, each a sum over a clip's tokens and a mean over clips.

    CE is fairseq's ``label_smoothed_cross_entropy``: the probability 1 - s of a target symbol, s/(V - 1) of
    each other.  The Kullback-Leibler divergence, which other toolkits report, is less by the constant entropy
    of that distribution, ``-(1 - s) ln(1 - s) - s ln(s/(V - 1))`` a token, and has the same gradient.

    The sample size is the number of clips whatever ``optimization.sentence_avg`` says: learning rates of
    published recipes presume it.  CTC is left out for clips that have fewer frames than their transcript
    needs; ``unaligned`` in the log is their share.
    """

    def __init__(self, cfg: HybridCriterionConfig, task: Any) -> None:
        super().__init__(task)
        if not 0 <= cfg.ctc_weight <= 1:
            raise ValueError(f"criterion.ctc_weight is {cfg.ctc_weight}; it must be from 0 to 1")
        self.cfg = cfg
        self.pad = task.target_dictionary.pad()
        self.eos = task.target_dictionary.eos()

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        logits, extra = model(**sample["net_input"])
        target = sample["target"]
        padding_mask = extra["encoder_out"]["encoder_padding_mask"][0]
        lengths = self.lengths_without_eos(target)
        ctc = ctc_losses(extra["ctc_logits"], padding_mask, target, lengths)
        attention, nll = self.attention_loss(logits, target)
        loss = self.cfg.ctc_weight * ctc.sum() + (1 - self.cfg.ctc_weight) * attention
        clips = target.size(0)
        unaligned = (~padding_mask).sum(1) < frames_needed(target, lengths)
        log = {
            "loss": loss.detach(),
            "ctc_loss": ctc.detach().sum(),
            "attention_loss": attention.detach(),
            "nll_loss": nll.detach(),
            "unaligned": unaligned.sum(),
            "correct": ((logits.argmax(-1) == target) & (target != self.pad)).sum(),
            "ntokens": sample["ntokens"],
            "nsentences": clips,
            "sample_size": clips,
        }
        if not model.training:
            log["unit_errors"], log["units"] = self.greedy_errors(extra["ctc_logits"], padding_mask, target)
        return loss, clips, log

    def lengths_without_eos(self, target: Tensor) -> Tensor:
        """Lengths int64 ``[B]`` of targets ``[B, L]``; eos, the last symbol, lies behind them."""
        return ((target != self.pad) & (target != self.eos)).sum(1)

    def attention_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over tokens of the smoothed and of the plain cross-entropy, for ``logits [B, L, V]``."""
        return label_smoothed_nll_loss(
            logits.float().log_softmax(-1).flatten(0, 1),
            target.flatten(),
            self.cfg.label_smoothing,
            ignore_index=self.pad,
        )

    def greedy_errors(self, ctc_logits: Tensor, padding_mask: Tensor, target: Tensor) -> tuple[int, int]:
        """Edit distance of the likeliest CTC paths from the targets, and the number of target symbols."""
        paths = ctc_logits.argmax(-1).masked_fill(padding_mask, BLANK)
        found = [path[path != BLANK].tolist() for path in map(torch.unique_consecutive, paths.cpu())]
        lengths = self.lengths_without_eos(target).tolist()
        wanted = [row[:length].tolist() for row, length in zip(target.cpu(), lengths, strict=True)]
        errors = sum(editdistance.eval(*pair) for pair in zip(found, wanted, strict=True))
        return errors, sum(lengths)

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over the clips (losses) and tokens (accuracy, nll in bits) of workers and micro-batches."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        clips, tokens, units = max(1, total("nsentences")), max(1, total("ntokens")), total("units")
        for key in PER_CLIP:
            metrics.log_scalar(key, total(key) / clips, clips, round=3)
        metrics.log_scalar("unaligned", total("unaligned") / clips, clips, round=4)
        metrics.log_scalar("nll_loss", total("nll_loss") / tokens / math.log(2), tokens, round=3)
        metrics.log_derived("ppl", lambda meters: get_perplexity(meters["nll_loss"].avg))
        metrics.log_scalar("accuracy", total("correct") * 100.0 / tokens, tokens, round=2)
        if units > 0:
            metrics.log_scalar("uer", total("unit_errors") * 100.0 / units, units, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def ctc_losses(logits: Tensor, padding_mask: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC of each clip in nats, float32 ``[B]``; zero where a clip has too few frames for its targets.

    Args:
        logits: ``[B, T, V]``, of any float dtype; V = 0 is the blank.
        padding_mask: bool ``[B, T]``, True on padding.
        targets: int64 ``[B, L]``; what lies behind ``target_lengths [B]`` is not read.
    """
    return F.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        targets,
        (~padding_mask).sum(1),
        target_lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )


def frames_needed(targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Least frames ``[B]`` that CTC aligns targets ``[B, L]`` with: a frame a symbol, and a blank in between
    where a symbol is repeated."""
    inside = torch.arange(1, targets.size(1), device=targets.device) < target_lengths[:, None]
    return target_lengths + ((targets[:, 1:] == targets[:, :-1]) & inside).sum(1)
