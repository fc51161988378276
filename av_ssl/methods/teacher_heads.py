"""What DistillAV's pre-training and fine-tuning share: the keys of teachers, their heads and their losses.

One head for each speech teacher (arXiv 2502.05766): a linear regression of its vectors, and cluster logits,
the cosine of a projection with one learned vector a cluster.  All heads take the encoder's last layer; each
emits r predictions a video frame, one for each of the teacher's vectors in it, instead of pooling the
teacher.

Losses of each teacher, summed over its frames t in the loss, with D channels:

    R = 1/sqrt(D) sum_t |p_t - y_t|^2          C = sum_t [logsumexp z_t - sum_c q_tc z_tc]

C is the cross-entropy of the soft clusters q.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, List, NamedTuple, cast

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import OmegaConf
from torch import Tensor, nn

from av_ssl.compat.keys import option
from av_ssl.methods.criterion import Logs, log_means, regression_loss, soft_cross_entropy
from av_ssl.methods.masked_units import cosine_similarities
from av_ssl.modules.aligned_mtl import GradientBalancer
from av_ssl.targets.teacher_targets import TARGET_SOURCES, TeacherFolder, TeacherTargets

SOURCES = ChoiceEnum(list(TARGET_SOURCES))
PRECISIONS = ChoiceEnum(["bfloat16", "float16", "float32"])
HEADS_PREFIX = "teacher_heads."


@dataclass
class TeachersConfig(FairseqDataclass):
    """The speech models that teach."""

    teachers: List[str] = option([], "folders of teachers, which `av-ssl targets teacher` makes")
    teacher_source: SOURCES = option(  # type: ignore[valid-type]
        "disk", "targets in the folders (disk), teachers run in training (online), or as available (mixed)"
    )
    teacher_precision: PRECISIONS = option("bfloat16", "of teachers that run in training")  # type: ignore[valid-type]
    soft_label_temp: float = option(0.1, "squared distances to centroids / (inertia x this) (DistillAV)")
    teacher_shapes: Any = option(None, "sizes of the heads; filled in from the folders, do not set it")


class Prediction(NamedTuple):
    """Float32 ``vectors [r N, D]`` and ``logits [r N, K]`` for the N frames in the loss of one teacher."""

    vectors: Tensor
    logits: Tensor


class TeacherHead(nn.Module):
    """Regression and cluster head for one teacher of D ``dim`` channels, r vectors ``per_frame``, K clusters.

    Output and clusters are compared in ``final_dim`` channels; cosines are divided by ``temperature``.
    """

    def __init__(
        self, channels: int, dim: int, per_frame: int, clusters: int, final_dim: int, temperature: float
    ) -> None:
        super().__init__()
        self.per_frame, self.temperature = per_frame, temperature
        self.regression = nn.Linear(channels, per_frame * dim)
        self.cluster_proj = nn.Linear(channels, per_frame * final_dim)
        self.codebook = nn.Parameter(torch.rand(clusters, final_dim))

    def regress(self, x: Tensor) -> Tensor:
        """``[N, C]`` -> float32 ``[r N, D]``."""
        return self.regression(x).unflatten(1, (self.per_frame, -1)).flatten(0, 1).float()

    def classify(self, x: Tensor) -> Tensor:
        """``[N, C]`` -> logits float32 ``[r N, K]``."""
        projected = self.cluster_proj(x).unflatten(1, (self.per_frame, -1)).flatten(0, 1)
        return cosine_similarities(projected, self.codebook) / self.temperature


class TeacherHeads(nn.ModuleList):
    """One :class:`TeacherHead` for each teacher."""

    def __iter__(self) -> Iterator[TeacherHead]:
        return cast(Iterator[TeacherHead], super().__iter__())

    def predict(
        self, x: Tensor, index: Sequence[Tensor], balancer: GradientBalancer | None = None
    ) -> list[Prediction]:
        """Predictions for each teacher, from the encoder's output ``x [B, T, C]``.

        Args:
            index: for each teacher int64 ``[N]``, flat indices b*T+t of the frames in the loss.
            balancer: weights the heads' gradients into ``x``; None: they add up.
        """
        if balancer is None:
            rows = [x.flatten(0, 1).index_select(0, frames) for frames in index]
            pairs = [(of_teacher, of_teacher) for of_teacher in rows]
        else:
            # The balancer needs each task's own gradient, so each task takes its frames from its own copy.
            copies = [copy.flatten(0, 1) for copy in balancer.fan_out(x, 2 * len(self))]
            pairs = [
                (copies[2 * k].index_select(0, frames), copies[2 * k + 1].index_select(0, frames))
                for k, frames in enumerate(index)
            ]
        return [
            Prediction(head.regress(one), head.classify(other))
            for head, (one, other) in zip(self, pairs, strict=True)
        ]


def make_heads(channels: int, shapes: Sequence[Mapping[str, int]], cfg: Any) -> TeacherHeads:
    """Heads for teachers with these ``dim``, ``per_frame``, ``clusters``; ``cfg`` has ``final_dim`` and
    ``logit_temp``."""
    return TeacherHeads(
        TeacherHead(
            channels, shape["dim"], shape["per_frame"], shape["clusters"],
            int(cfg["final_dim"]) or channels, float(cfg["logit_temp"]),
        )
        for shape in shapes
    )  # fmt: skip


def attach_teacher_shapes(cfg: Any) -> None:
    """Fill ``cfg.teacher_shapes`` from the folders, if any, so that the checkpoint loads without them."""
    if not getattr(cfg, "teachers", None):
        return
    shapes = [TeacherFolder.read(path).shape() for path in cfg.teachers]
    OmegaConf.set_struct(cfg, False)
    cfg.teacher_shapes = shapes
    OmegaConf.set_struct(cfg, True)


def target_digests(shapes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Digests of everything that decides each teacher's targets; a training resumes only with the same."""
    return [str(shape["targets"]) for shape in shapes]


def open_targets(cfg: Any) -> TeacherTargets:
    """The teachers that a configuration names."""
    return TeacherTargets(
        [TeacherFolder.read(path) for path in cfg.teachers],
        source=str(cfg.teacher_source),
        dtype=getattr(torch, str(cfg.teacher_precision)),
        temperature=cfg.soft_label_temp,
    )


LOGGED = ("regression", "clusters", "accuracy", "entropy")


class TeacherLosses(NamedTuple):
    """Sums over the targets of one teacher: scalars float32."""

    regression: Tensor
    clusters: Tensor


def teacher_losses(output: Mapping[str, Any]) -> list[TeacherLosses]:
    """Both losses of each teacher, from ``predictions`` and ``targets`` of a model."""
    return [
        TeacherLosses(
            regression_loss(prediction.vectors, target.vectors),
            soft_cross_entropy(prediction.logits, target.posteriors),
        )
        for prediction, target in zip(output["predictions"], output["targets"], strict=True)
    ]


@torch.no_grad()
def teacher_log(output: Mapping[str, Any], losses: Sequence[TeacherLosses]) -> dict[str, Any]:
    """Sums over targets, for :func:`reduce_teacher_metrics`, named by the number of the teacher."""
    log: dict[str, Any] = {}
    triples = zip(losses, output["predictions"], output["targets"], strict=True)
    for number, (loss, prediction, target) in enumerate(triples):
        hits = prediction.logits.argmax(dim=1) == target.posteriors.argmax(dim=1)
        log |= {
            f"teacher{number}_targets": len(target.vectors),
            # Per channel, so that it is 1 where the student predicts the mean of normalised targets.
            f"teacher{number}_regression": loss.regression.detach() / target.vectors.size(1) ** 0.5,
            f"teacher{number}_clusters": loss.clusters.detach(),
            f"teacher{number}_accuracy": hits.sum(),
            f"teacher{number}_entropy": torch.special.entr(target.posteriors).sum(),
        }
    return log


def reduce_teacher_metrics(logs: Logs) -> None:
    """Log means over the targets of all workers and micro-batches, for each teacher.

    They are the squared error a channel, the soft cross-entropy and the entropy of the soft clusters (nats),
    and the share of targets whose most probable cluster is the student's.
    """
    number = 0
    while any(f"teacher{number}_targets" in log for log in logs):
        log_means(logs, [f"teacher{number}_{name}" for name in LOGGED], f"teacher{number}_targets")
        number += 1
