"""Weighted sum of CTC and label-smoothed cross-entropy (Watanabe et al., 2017).

The defaults are those of RAVEn's published configuration files (Haliassos et al., 2023, arXiv 2212.06246).
"""

from dataclasses import dataclass
from typing import Any

import editdistance
import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.utils import get_perplexity
from torch import Tensor

from av_ssl.compat.keys import option
from av_ssl.layout import BLANK
from av_ssl.methods.criterion import BITS, Logs, MeanCriterion, log_means, logged

PER_CLIP = ("loss", "ctc_loss", "attention_loss", "unaligned")
"""What is logged as a mean over clips; losses in nats."""


@dataclass
class HybridCriterionConfig(FairseqDataclass):
    """The weights of the two terms."""

    ctc_weight: float = option(0.1, "weight of CTC; that of the attention decoder is the rest")
    label_smoothing: float = option(0.1, "probability distributed over all symbols but the correct one")


@register_criterion("hybrid_ctc_attention", dataclass=HybridCriterionConfig)
class HybridCriterion(MeanCriterion):
    """``ctc_weight CTC + (1 - ctc_weight) CE``, each a sum over a clip's tokens and a mean over clips.

    CE is fairseq's ``label_smoothed_cross_entropy``: a target symbol has probability 1 - s, each other one
    s/(V - 1).  The Kullback-Leibler divergence, which other toolkits report, is lower by the constant entropy
    of that distribution, ``-(1 - s) ln(1 - s) - s ln(s/(V - 1))`` a token, and has the same gradient.

    The sample size is the number of clips whatever ``optimization.sentence_avg`` is: the learning rates of
    published recipes assume it.  CTC is left out for clips that have fewer frames than their transcript
    needs; ``unaligned`` in the log is their share.
    """

    def __init__(self, cfg: HybridCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        if not 0 <= cfg.ctc_weight <= 1:
            raise ValueError(f"criterion.ctc_weight is {cfg.ctc_weight}; it must be from 0 to 1")
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
        log = logged(
            sample,
            clips,
            loss=loss,
            ctc_loss=ctc.sum(),
            attention_loss=attention,
            nll_loss=nll,
            unaligned=unaligned.sum(),
            correct=((logits.argmax(-1) == target) & (target != self.pad)).sum(),
        )
        if not model.training:
            log["unit_errors"], log["units"] = self.greedy_errors(extra["ctc_logits"], padding_mask, target)
        return loss, clips, log

    def lengths_without_eos(self, target: Tensor) -> Tensor:
        return ((target != self.pad) & (target != self.eos)).sum(1)

    def attention_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return label_smoothed_nll_loss(
            logits.float().log_softmax(-1).flatten(0, 1),
            target.flatten(),
            self.cfg.label_smoothing,
            ignore_index=self.pad,
        )

    def greedy_errors(self, ctc_logits: Tensor, padding_mask: Tensor, target: Tensor) -> tuple[int, int]:
        """Edit distance of the most likely CTC paths from the targets, and the number of target symbols."""
        paths = ctc_logits.argmax(-1).masked_fill(padding_mask, BLANK)
        found = [path[path != BLANK].tolist() for path in map(torch.unique_consecutive, paths.cpu())]
        lengths = self.lengths_without_eos(target).tolist()
        wanted = [row[:length].tolist() for row, length in zip(target.cpu(), lengths, strict=True)]
        errors = sum(editdistance.eval(*pair) for pair in zip(found, wanted, strict=True))
        return errors, sum(lengths)

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        """Means over the clips (losses) and tokens (accuracy, nll in bits) of workers and micro-batches."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        log_means(logging_outputs, PER_CLIP)
        log_means(logging_outputs, ["nll_loss"], "ntokens", BITS)
        metrics.log_derived("ppl", lambda meters: get_perplexity(meters["nll_loss"].avg))
        tokens, units = max(1, total("ntokens")), total("units")
        metrics.log_scalar("accuracy", total("correct") * 100.0 / tokens, tokens, round=2)
        if units > 0:
            metrics.log_scalar("uer", total("unit_errors") * 100.0 / units, units, round=2)


def ctc_losses(logits: Tensor, padding_mask: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC of each clip in nats, float32 ``[B]``; zero where a clip has too few frames for its targets.

    Args:
        logits: ``[B, T, V]``, of any float dtype; V = 0 is the blank.
        padding_mask: bool ``[B, T]``, True on padding.
        targets: int64 ``[B, L]``, of which the first ``target_lengths [B]`` symbols are read.
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
    """Fewest frames ``[B]`` to which CTC aligns targets ``[B, L]``: one a symbol, and one for a blank between
    repeated symbols."""
    inside = torch.arange(1, targets.size(1), device=targets.device) < target_lengths[:, None]
    return target_lengths + ((targets[:, 1:] == targets[:, :-1]) & inside).sum(1)
