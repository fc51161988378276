"""Cross-entropy of cluster ids (HuBERT, Hsu et al., 2021; AV-HuBERT, Shi et al., 2022), on masked frames and,
if wanted, on the others."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.logging import metrics
from torch import Tensor

PARTS = ("m", "u")
"""Masked frames and the others, as AV-HuBERT abbreviates them."""


def cross_entropy_sums(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sums over frames, in nats: one for each label set.

    Args:
        logits: float32 ``[N, V]`` for each label set.
        targets: int64 ``[N]`` for each label set.

    >>> import torch
    >>> (loss,) = cross_entropy_sums([torch.zeros(3, 4)], [torch.tensor([0, 1, 2])])
    >>> round((loss / 3).exp().item(), 3)
    4.0
    """
    pairs = zip(logits, targets, strict=True)
    return torch.stack([F.cross_entropy(y, t, reduction="sum") for y, t in pairs])


def masked_unit_losses(output: dict[str, Any]) -> dict[str, Tensor]:
    """By part, the cross-entropies of ``logit_{m,u}_list`` and ``target_{m,u}_list``, summed over frames: a
    vector with one for each label set."""
    return {
        part: cross_entropy_sums(output[f"logit_{part}_list"], output[f"target_{part}_list"])
        for part in PARTS
    }


def frame_counts(output: dict[str, Any]) -> dict[str, int]:
    """Frames of each part; with several label sets those of the first, as AV-HuBERT counts."""
    return {part: output[f"target_{part}_list"][0].numel() for part in PARTS}


@torch.no_grad()
def masked_unit_log(output: dict[str, Any], losses: dict[str, Tensor]) -> dict[str, Any]:
    """Loss (nats), correct and counted frames of each part ``m``, ``u`` and label set ``0``, ``1``, ...

    Args:
        output: of the model.
        losses: see :func:`masked_unit_losses`.
    """
    log: dict[str, Any] = {}
    for part in PARTS:
        pairs = zip(output[f"logit_{part}_list"], output[f"target_{part}_list"], strict=True)
        for k, (logits, targets) in enumerate(pairs):
            log[f"loss_{part}_{k}"] = losses[part][k].detach()
            log[f"correct_{part}_{k}"] = (logits.argmax(-1) == targets).sum()
            log[f"count_{part}_{k}"] = targets.numel()
    return log


def reduce_masked_unit_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
    """Log each part's loss (bits a frame) and accuracy (share of frames), over workers and micro-batches."""
    keys = sorted({key for log in logging_outputs for key in log if key.startswith("count_")})
    for key in keys:
        name = key.removeprefix("count_")
        count = sum(log.get(key, 0) for log in logging_outputs)
        if not count:
            continue
        loss = sum(log.get(f"loss_{name}", 0) for log in logging_outputs)
        correct = sum(log.get(f"correct_{name}", 0) for log in logging_outputs)
        bits = torch.as_tensor(loss / count / math.log(2)).item()
        metrics.log_scalar(f"loss_{name}", bits, count, round=3)
        metrics.log_scalar(f"accuracy_{name}", torch.as_tensor(correct / count).item(), count, round=4)
