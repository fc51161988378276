"""Prediction of cluster ids: the head and the losses of HuBERT, which AV-HuBERT and AV2vec-MLM share.

A projection of the encoder's output is compared with one learned vector a class (Hsu et al., 2021, arXiv
2106.07447); the loss is the cross-entropy on masked frames and, if wanted, on the others.  The head's
parameters lie on the model itself, under the names that published checkpoints have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor, nn

from av_ssl.compat.keys import option
from av_ssl.errors import DataError
from av_ssl.methods.criterion import BITS, Logs, cross_entropy_sums, log_means

SIMILARITIES = ChoiceEnum(["cosine", "dot"])
SMALLEST_NORM = 1e-6


@dataclass
class ClusterHeadConfig(FairseqDataclass):
    """Names and defaults are AV-HuBERT's."""

    final_dim: int = option(0, "channels in which output and classes are compared; 0: encoder_embed_dim")
    untie_final_proj: bool = option(False, "one projection for each label set, not one for all")
    logit_temp: float = option(0.1, "similarities are divided by it")
    target_glu: bool = option(False, "linear layer and GLU on the class vectors")
    sim_type: SIMILARITIES = option("cosine", "similarity of output and class vector")  # type: ignore[valid-type]


CLUSTER_HEAD_TENSORS = ("label_embs_concat", "final_proj.", "target_glu.")
"""Prefixes of the tensors of a cluster head."""


class ClusterHead:
    """Mixed into a model: ``final_proj``, ``label_embs_concat`` [sum of classes, D] and their logits."""

    final_proj: nn.Linear
    label_embs_concat: nn.Parameter
    target_glu: nn.Sequential | None

    def add_cluster_head(self, cfg: Any, channels: int, classes: Sequence[int]) -> None:
        """Make the parameters, for an encoder of C ``channels`` and label sets of so many ``classes``."""
        dim = cfg.final_dim or channels
        self.classes = list(classes)
        self.untied = cfg.untie_final_proj
        self.similarity, self.temperature = str(cfg.sim_type), cfg.logit_temp
        self.final_proj = nn.Linear(channels, dim * len(self.classes) if self.untied else dim)
        self.label_embs_concat = nn.Parameter(torch.rand(sum(self.classes), dim))
        self.target_glu = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU()) if cfg.target_glu else None

    def cluster_logits(self, x: Tensor) -> list[Tensor]:
        """Logits float32 ``[N, V]`` for each label set, from the encoder's output ``[N, C]``."""
        projected = self.final_proj(x)
        sets = len(self.classes)
        per_set = projected.chunk(sets, dim=-1) if self.untied else [projected] * sets
        vectors = self.label_embs_concat.split(self.classes)
        return [self.similarities(y, v) / self.temperature for y, v in zip(per_set, vectors, strict=True)]

    def similarities(self, x: Tensor, vectors: Tensor) -> Tensor:
        """``[N, D]`` and ``[V, D]`` -> ``[N, V]``, as one matrix product."""
        if self.target_glu is not None:
            vectors = self.target_glu(vectors)
        if self.similarity == "cosine":
            return cosine_similarities(x, vectors)
        return x.float() @ vectors.float().t()

    def cluster_predictions(
        self, x: Tensor, target_list: Sequence[Tensor], index: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits ``[N, V]`` and targets int64 ``[N]`` of each label set, on frames ``index [N]`` (b*T+t)."""
        logits = self.cluster_logits(x.flatten(0, 1)[index])
        return logits, [target.flatten()[index] for target in target_list]

    def masked_units(
        self, x: Tensor, target_list: Sequence[Tensor], masks: dict[str, Any]
    ) -> dict[str, list[Tensor]]:
        """Logits and targets on the frames of the loss (``_m_``) and on the other real frames (``_u_``)."""
        masked, masked_targets = self.cluster_predictions(x, target_list, masks["loss_index"])
        rest, rest_targets = self.cluster_predictions(x, target_list, masks["rest_index"])
        return {
            "logit_m_list": masked,
            "target_m_list": masked_targets,
            "logit_u_list": rest,
            "target_u_list": rest_targets,
        }


def cosine_similarities(x: Tensor, vectors: Tensor) -> Tensor:
    """``[N, D]`` and ``[V, D]`` -> float32 ``[N, V]``, as one matrix product."""
    x = F.normalize(x.float(), dim=-1, eps=SMALLEST_NORM)
    return x @ F.normalize(vectors.float(), dim=-1, eps=SMALLEST_NORM).t()


def label_classes(task: Any) -> list[int]:
    """Dictionary sizes of the task's label sets."""
    classes = [len(dictionary) for dictionary in getattr(task, "dictionaries", [])]
    if not classes:
        raise DataError(
            "this model predicts cluster ids: name the label files, e.g. task.labels=[km], and the folder "
            "that holds them (task.label_dir); `av-ssl targets clusters` makes them"
        )
    return classes


PARTS = ("m", "u")
"""Masked frames and the others, as AV-HuBERT abbreviates them."""


def masked_unit_losses(output: dict[str, Any]) -> dict[str, Tensor]:
    """By part, the cross-entropies of its label sets, summed over frames."""
    return {
        part: cross_entropy_sums(output[f"logit_{part}_list"], output[f"target_{part}_list"])
        for part in PARTS
    }


def frame_counts(output: dict[str, Any]) -> dict[str, int]:
    """Frames of each part; with several label sets those of the first, as AV-HuBERT counts."""
    return {part: output[f"target_{part}_list"][0].numel() for part in PARTS}


@torch.no_grad()
def masked_unit_log(output: dict[str, Any], losses: Mapping[str, Tensor]) -> dict[str, Any]:
    """Loss (nats), correct and counted frames of each part ``m``, ``u`` and label set ``0``, ``1``, ..."""
    log: dict[str, Any] = {}
    for part in PARTS:
        pairs = zip(output[f"logit_{part}_list"], output[f"target_{part}_list"], strict=True)
        for k, (logits, targets) in enumerate(pairs):
            log[f"loss_{part}_{k}"] = losses[part][k].detach()
            log[f"accuracy_{part}_{k}"] = (logits.argmax(-1) == targets).sum()
            log[f"count_{part}_{k}"] = targets.numel()
    return log


def reduce_masked_unit_metrics(logs: Logs) -> None:
    """Log each part's loss (bits a frame) and accuracy (share of frames), over workers and micro-batches."""
    for count in sorted({key for log in logs for key in log if key.startswith("count_")}):
        name = count.removeprefix("count_")
        if any(log.get(count, 0) for log in logs):
            log_means(logs, [f"loss_{name}"], count, BITS)
            log_means(logs, [f"accuracy_{name}"], count)
