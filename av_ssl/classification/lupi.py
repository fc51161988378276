"""What is done to a teacher's embeddings before a student matches them.

A trained classifier as the source of targets: frozen, in eval mode, on clean audio.

LUPI: an audio student that learns the embeddings of an audio-visual teacher.

A. Hajavi, A. Etemad, "Audio Representation Learning by Distilling Video as Privileged Information", IEEE
Transactions on Artificial Intelligence, 2023 (arXiv 2302.02845).  Its abstract alone was at hand.  From it:
teacher and student consist of an encoder, in the sequential setting an aggregator, and a task header; the
teacher's embeddings (in the sequential setting of encoder and aggregator both) train the student, whose
header learns from the ground truth; at inference there is no video.  Everything else is [ours], and an
option.

What is refused before a student of LUPI is trained: options that contradict each other or the teacher.

How far a student's embeddings are from a teacher's.  Which distance the paper of LUPI uses is not in its
abstract.

Soft labels: the earlier way of distilling privileged information, by the teacher's class probabilities.

The losses of an audio student with an audio-visual teacher (Hajavi and Etemad, arXiv 2302.02845).

That embeddings of the encoder and, in the sequential setting, of the aggregator train the student is in the
paper's abstract; distances and weights are [ours].  Soft labels are what it compares itself with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model
from torch import Tensor, nn
from typing_extensions import Self

from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.classification.classifier import AVClassifier, ClassifierConfig
from av_ssl.classification.criterion import class_log, class_loss, reduce_class_log, reduce_clip_means
from av_ssl.data.classes import ClassList, Segmentation, SegmentBatch
from av_ssl.errors import DataError
from av_ssl.methods.fused_encoder import Source

TARGET_NORMS = ("standardize", "l2", "layernorm", "none")
SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-4


def normalized(embedding: Tensor, norm: str, behind: nn.BatchNorm1d) -> Tensor:
    """The embedding, float32 ``[..., D]``, normalised.

    Args:
        embedding: ``[..., D]``, the output of ``behind``.
        norm: ``standardize`` (mean 0 and variance 1 of each channel), ``l2`` (unit length), ``layernorm``
            (mean 0 and variance 1 of each vector) or ``none``.
        behind: a batch norm in eval mode.  Its output has mean ``bias`` and deviation ``|weight|`` over the
            clips that it was trained on, so that no further pass over them is needed.

    Raises:
        ValueError: the norm is unknown.
    """
    x = embedding.float()
    if norm == "none":
        return x
    if norm == "l2":
        return F.normalize(x, dim=-1, eps=SMALLEST_NORM)
    if norm == "layernorm":
        return F.layer_norm(x, x.shape[-1:])
    if norm == "standardize":
        return (x - behind.bias.float()) / behind.weight.float().abs().clamp(min=SMALLEST_DEVIATION)
    raise ValueError(f"target_norm is {norm!r}; it must be one of {', '.join(TARGET_NORMS)}")


class FrozenTeacher:
    """Embeddings and logits of a classifier that never changes.

    It is not an ``nn.Module`` on purpose: optimizer, distributed wrapper, ``train()`` and checkpoints must
    not see it.

    Args:
        model: any classifier with a header.
        norm: of its embeddings, see :func:`~av_ssl.classification.lupi.normalized`.
    """

    def __init__(self, model: AVClassifier, norm: str) -> None:
        if norm not in TARGET_NORMS:
            raise ValueError(f"target_norm is {norm!r}; it must be one of {', '.join(TARGET_NORMS)}")
        self.model = model.requires_grad_(False).eval()
        self.norm = norm
        self.class_names = list(getattr(model, "class_names", ()))
        self.embed_dim = int(model.cfg.embed_dim)
        self.aggregate_dim = None if model.aggregator is None else int(model.cfg.aggregate_dim)

    @classmethod
    def load(
        cls, path: str | Path, norm: str, task_cfg: Mapping[str, Any], keys: tuple[str, ...]
    ) -> "FrozenTeacher":
        """Read a teacher's checkpoint.

        Args:
            path: of an ``av_classifier``.
            norm: of its embeddings.
            task_cfg: of the student's task, whose ``keys`` must be those of the teacher's.

        Raises:
            DataError: the file holds no classifier, or one that hears or sees something else, or in
                segments of other lengths.
        """
        # Here, because models import this package.
        from av_ssl.checkpoints.loading import load
        from av_ssl.classification.classifier import AVClassifier

        model = load(path)
        if not isinstance(model, AVClassifier) or model.header is None:
            raise DataError(
                f"model.teacher_path: {path} holds {type(model).__name__}, not a classifier with a header; "
                "train an av_classifier first"
            )
        check_alike(path, model.task_cfg, task_cfg, keys)
        return cls(model, norm)

    def check_classes(self, classes: ClassList) -> None:
        """Raise DataError when its probabilities, by position, are of other classes than the student's."""
        own = self.class_names
        if own == classes.names:
            return
        differing = next(
            (pair for pair in zip(own, classes.names, strict=False) if pair[0] != pair[1]),
            (f"{len(own)} classes", f"{len(classes)}"),
        )
        raise DataError(
            f"criterion.soft_labels: the teacher's classes are not those of {classes.origin} (e.g. "
            f"{differing[0]}, here {differing[1]}); use the list and order that it was trained with"
        )

    @torch.no_grad()
    def __call__(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
    ) -> dict[str, Tensor]:
        """``teacher_enc`` float32 ``[B, K, D]``, ``teacher_logits`` ``[B, C]`` and, with an aggregator,
        ``teacher_agg`` ``[B, Z]``; both embeddings normalised."""
        self.follow_device(padding_mask.device)
        clean = source.get("audio_clean")
        heard = {**source, "audio": source.get("audio") if clean is None else clean}
        output = self.model(heard, padding_mask, frame_index, segments)
        targets = {
            "teacher_enc": normalized(output["enc"], self.norm, self.model.encoder.norm),
            "teacher_logits": output["logits"].float(),
        }
        if self.model.aggregator is not None:
            targets["teacher_agg"] = normalized(output["agg"], self.norm, self.model.aggregator.norm)
        return targets

    def follow_device(self, device: torch.device) -> None:
        """Move to where the batch is: a checkpoint is read before the student is moved."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)


def check_alike(
    path: str | Path, stored: Mapping[str, Any], task_cfg: Mapping[str, Any], keys: tuple[str, ...]
) -> None:
    """Raise DataError when teacher and student would hear, see or cut clips in different ways.

    Args:
        path: of the teacher.
        stored: configuration of its task.
        task_cfg: of the student's.
        keys: that must be alike, besides segments.
    """
    for key in keys:
        if key in stored and str(stored[key]) != str(task_cfg[key]):
            raise DataError(
                f"task.{key}={task_cfg[key]}, but the teacher {path} was trained with {key}={stored[key]}; "
                "set it alike"
            )
    theirs, own = (
        Segmentation.of(int(cfg["segment_frames"]), int(cfg["segment_hop"])) for cfg in (stored, task_cfg)
    )
    if theirs != own:
        raise DataError(
            f"the student's clips are {described(own)}, those of the teacher {path} were "
            f"{described(theirs)}; set task.segment_frames and task.segment_hop alike"
        )


def described(segmentation: Segmentation | None) -> str:
    if segmentation is None:
        return "whole"
    return f"cut into segments of {segmentation.length} frames every {segmentation.hop}"


PHASES = ("embed", "head", "concurrent")
GRADIENT_POLICIES = ("decoupled", "joint")
AGGREGATOR_TEACHERS = ("teacher", "labels")


@dataclass
class LupiStudentConfig(ClassifierConfig):
    """How the student is trained.  All [ours]."""

    streams: str = field(default="audio", metadata={"help": "what the student takes"})
    teacher_path: str = field(
        default="", metadata={"help": "checkpoint of an av_classifier; needed for training only"}
    )
    phase: ChoiceEnum(PHASES) = field(  # type: ignore[valid-type]
        default="concurrent",
        metadata={
            "help": "embed: encoder and aggregator from the teacher's embeddings; head: then the header from "
            "labels, what the teacher trained frozen; concurrent: both at once"
        },
    )
    init_student_from: str = field(
        default="",
        metadata={"help": "student whose encoder and aggregator to start from; phase=head needs it"},
    )
    grad_policy: ChoiceEnum(GRADIENT_POLICIES) = field(  # type: ignore[valid-type]
        default="decoupled",
        metadata={
            "help": "decoupled: labels train the header alone (our reading of the abstract); joint: the "
            "encoder, too"
        },
    )
    agg_grad_to_encoder: bool = field(
        default=True,
        metadata={"help": "the aggregator's embedding trains the encoder, too (our reading of the abstract)"},
    )
    agg_trained_by: ChoiceEnum(AGGREGATOR_TEACHERS) = field(  # type: ignore[valid-type]
        default="teacher",
        metadata={
            "help": "under decoupled, what trains the aggregator; labels: beside the header, for "
            "criterion.beta=0"
        },
    )
    target_norm: ChoiceEnum(TARGET_NORMS) = field(  # type: ignore[valid-type]
        default="standardize",
        metadata={
            "help": "what is done to the teacher's embeddings: mean 0 and variance 1 a channel by default"
        },
    )
    hint_dim: int = field(
        default=0,
        metadata={
            "help": "compare a linear map of the student's embeddings to so many channels, the teacher's, as "
            "FitNets does; 0: the embeddings themselves"
        },
    )


@register_model("lupi_student", dataclass=LupiStudentConfig)
class LupiStudent(AVClassifier):
    """Classifier of audio that is trained beside a frozen teacher.

    The teacher is no sub-module: neither the optimizer nor ``train()`` nor the checkpoint sees it.

    Args:
        cfg: see :class:`LupiStudentConfig`.
        pretrained: the checkpoint that training starts from, if there is one.
        teacher: None for scoring, and for ``phase=head``.

    Raises:
        ValueError: options contradict each other, or the teacher's embeddings are of another size.
    """

    cfg: LupiStudentConfig

    def __init__(
        self,
        cfg: LupiStudentConfig,
        pretrained: StoredModel | None,
        teacher: Optional["FrozenTeacher"] = None,
    ) -> None:
        super().__init__(cfg, pretrained, with_header=str(cfg.phase) != "embed")
        self.phase = str(cfg.phase)
        self.teacher = teacher
        self.joint = str(cfg.grad_policy) == "joint"
        self.aggregator_from_labels = str(cfg.agg_trained_by) == "labels"
        self.hint: nn.Module | None = None
        if cfg.hint_dim:
            self.hint = nn.Linear(cfg.embed_dim, cfg.hint_dim)
        check_options(cfg)
        if teacher is not None:
            check_teacher(self, teacher)
        if self.phase == "head":
            for part in self.trained_before():
                part.requires_grad_(False)

    @classmethod
    def build_model(cls, cfg: LupiStudentConfig, task: Any) -> Self:
        """Build a student; for training with the task's teacher, from ``init_student_from`` if it is set.

        Raises:
            ValueError: the phase needs a teacher, or an earlier student, that is not named.
        """
        starting = task.starts_from_pretrained
        teacher = getattr(task, "teacher", None) if starting else None
        if starting and (teacher is None) != (str(cfg.phase) == "head"):
            raise ValueError(
                f"model.phase={cfg.phase}: "
                + (
                    "name the teacher in model.teacher_path"
                    if teacher is None
                    else "it learns from labels alone, so leave model.teacher_path empty"
                )
            )
        if starting and str(cfg.phase) == "head" and not cfg.init_student_from:
            raise ValueError("model.phase=head: name the student of phase=embed in model.init_student_from")
        student = cls(cfg, task.pretrained, teacher)
        if starting and cfg.init_student_from:
            student.start_from(cfg.init_student_from)
        return student

    def trained_before(self) -> list[nn.Module]:
        """What phase=head leaves as it is: the encoder, and an aggregator that the teacher has trained."""
        if self.aggregator is None or self.aggregator_from_labels:
            return [self.encoder]
        return [self.encoder, self.aggregator]

    def start_from(self, path: str) -> None:
        """Take encoder and aggregator of an earlier student.

        Raises:
            CheckpointError: the file holds others.
        """
        stored = read_checkpoint(path, "model.init_student_from").tensors
        prefixes = ("encoder.", "aggregator.")
        wanted = {name: tensor for name, tensor in stored.items() if name.startswith(prefixes)}
        own = {name: t.shape for name, t in nn.Module.state_dict(self).items() if name.startswith(prefixes)}
        if own != {name: tensor.shape for name, tensor in wanted.items()}:
            differing = sorted(own.keys() ^ wanted.keys()) or sorted(own)
            raise CheckpointError(
                f"model.init_student_from: {path} holds another encoder or aggregator (e.g. {differing[0]}); "
                "give the model the same keys as there"
            )
        nn.Module.load_state_dict(self, wanted, strict=False)

    def train(self, mode: bool = True) -> Self:
        """As ever, but what is frozen stays in eval mode: fairseq calls this before every update."""
        super().train(mode)
        if self.phase == "head":
            for part in self.trained_before():
                part.eval()
        return self

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """As :meth:`AVClassifier.forward`; gradients go where ``grad_policy`` lets them.

        Returns:
            Besides, with a teacher: ``teacher_enc [B, K, D]``, ``teacher_agg [B, Z]`` (normalised) and
            ``teacher_logits [B, C]``; with ``hint_dim``, ``hint [B, K, D]``, which is compared in place
            of ``enc``.
        """
        output = super().forward(source, padding_mask, frame_index, segments, target)
        if self.hint is not None:
            output["hint"] = self.hint(output["enc"])
        if self.teacher is not None:
            output.update(self.teacher(source, padding_mask, frame_index, segments))
        return output

    def to_aggregator(self, embeddings: Tensor) -> Tensor:
        cut_off = self.aggregator_from_labels or not self.cfg.agg_grad_to_encoder
        return embeddings.detach() if cut_off and self.aggregator is not None else embeddings

    def to_header(self, clip: Tensor) -> Tensor:
        return clip if self.joint or self.aggregator_from_labels else clip.detach()


def check_options(cfg: LupiStudentConfig) -> None:
    """Raise ValueError for options that contradict each other."""
    joint, by_labels = str(cfg.grad_policy) == "joint", str(cfg.agg_trained_by) == "labels"
    if joint and (by_labels or not cfg.agg_grad_to_encoder):
        raise ValueError(
            "model.grad_policy=joint: labels train everything; agg_trained_by=labels and "
            "agg_grad_to_encoder=false are for decoupled"
        )
    if by_labels and cfg.segment_frames == 0:
        raise ValueError("model.agg_trained_by=labels: there is no aggregator; set task.segment_frames")
    if cfg.hint_dim and not joint:
        raise ValueError(
            "model.hint_dim: the header gets the embeddings before the map, which nothing holds to the "
            "teacher's; set model.grad_policy=joint, or model.embed_dim to the teacher's"
        )


def check_teacher(student: LupiStudent, teacher: FrozenTeacher) -> None:
    """Raise ValueError for embeddings that cannot be compared."""
    cfg = student.cfg
    if (teacher.aggregate_dim is None) != (student.aggregator is None):
        raise ValueError(
            "teacher and student differ: one has an aggregator, the other has none; set "
            "task.segment_frames as it was for the teacher"
        )
    if teacher.embed_dim != (cfg.hint_dim or cfg.embed_dim):
        raise ValueError(
            f"the teacher's embeddings have {teacher.embed_dim} channels: set model.embed_dim (or "
            "model.hint_dim) alike"
        )
    if teacher.aggregate_dim not in (None, cfg.aggregate_dim):
        raise ValueError(
            f"the teacher's aggregated embeddings have {teacher.aggregate_dim} channels: set "
            "model.aggregate_dim alike"
        )


def check_losses(student: LupiStudent, losses: Any) -> None:
    """Raise ValueError when the criterion's weights leave a part of the student as it was drawn, or ask for
    what its phase has not.

    Args:
        student: to be trained.
        losses: configuration of the ``lupi`` criterion.
    """
    embeds, has_header = student.phase != "head", student.header is not None
    if str(losses.soft_labels) != "none" and not (embeds and has_header):
        raise ValueError(
            f"criterion.soft_labels={losses.soft_labels}: model.phase={student.phase} has no "
            f"{'teacher' if has_header else 'header'}; soft labels are for model.phase=concurrent"
        )
    if not embeds:
        return
    from_labels = has_header and student.joint and losses.gamma > 0
    aggregated = losses.beta if student.aggregator is not None else 0.0
    to_encoder = bool(student.cfg.agg_grad_to_encoder) and not student.aggregator_from_labels
    if not (from_labels or losses.alpha > 0 or (aggregated > 0 and to_encoder)):
        raise ValueError(
            f"criterion.alpha={losses.alpha}, beta={losses.beta} with model.phase={student.phase}: nothing "
            "would train the encoder; set criterion.alpha above 0, or for a baseline of labels "
            "model.phase=concurrent and model.grad_policy=joint"
        )
    if student.aggregator is not None and not (
        from_labels or aggregated > 0 or student.aggregator_from_labels
    ):
        raise ValueError(
            f"criterion.beta={losses.beta}: nothing would train the aggregator; set "
            "model.agg_trained_by=labels, in phase=head, too"
        )


DISTANCES = ("mse", "sse", "nmse", "cos", "l1", "smooth_l1", "margin")
MARGIN = 0.1


def embedding_distance(student: Tensor, teacher: Tensor, name: str) -> Tensor:
    """Distances float32 ``[...]`` between vectors ``[..., D]``.

    Args:
        student, teacher: the vectors.
        name: ``mse``, ``l1``, ``smooth_l1`` (means over channels), ``sse`` (the squared distance itself),
            ``cos`` (1 - cosine), ``nmse`` (squared distance of unit vectors, twice ``cos``) or ``margin``
            (``cos`` less 0.1, not below 0).

    Raises:
        ValueError: the name is unknown.

    >>> import torch
    >>> u, v = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 5.0])
    >>> [round(embedding_distance(u, v, name).item(), 4) for name in DISTANCES]
    [5.0, 10.0, 0.4, 0.2, 2.0, 1.5, 0.1]
    """
    u, v = student.float(), teacher.float()
    if name == "mse":
        return (u - v).square().mean(-1)
    if name == "sse":
        return (u - v).square().sum(-1)
    if name == "l1":
        return (u - v).abs().mean(-1)
    if name == "smooth_l1":
        return F.smooth_l1_loss(u, v, reduction="none").mean(-1)
    apart = 1 - cosine(u, v)
    if name == "nmse":
        return 2 * apart
    if name == "cos":
        return apart
    if name == "margin":
        return (apart - MARGIN).clamp(min=0)
    raise ValueError(f"criterion.distance is {name!r}; it must be one of {', '.join(DISTANCES)}")


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Cosines float32 ``[...]`` of vectors ``[..., D]``."""
    return F.cosine_similarity(u.float(), v.float(), dim=-1, eps=SMALLEST_NORM)


def mean_over_segments(values: Tensor, empty: Tensor) -> Tensor:
    """Mean ``[B]`` of ``[B, K]`` over segments that are there: long clips count no more than short ones."""
    return values.masked_fill(empty, 0).sum(1) / (~empty).sum(1).clamp(min=1)


SOFT_LABELS = ("none", "paper", "code", "hinton")


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float, variant: str) -> Tensor:
    """Cross-entropy (or divergence) of a student from a teacher's softened probabilities, float32 ``[B]``.

    Args:
        student, teacher: logits ``[B, C]``, without margin.
        temperature: divides the teacher's logits, for ``hinton`` the student's, too.
        variant: ``paper``: generalised distillation (Lopez-Paz et al., 2016); ``code``: times the squared
            temperature, as its authors' published code has it; ``hinton``: Kullback-Leibler divergence times
            the squared temperature (Hinton, Vinyals, Dean, 2015).

    Raises:
        ValueError: the variant is unknown, or the numbers of classes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher tells {teacher.size(-1)} classes apart, the student {student.size(-1)}: soft "
            "labels need the same classes"
        )
    targets = (teacher.float() / temperature).softmax(-1)
    if variant == "hinton":
        softened = (student.float() / temperature).log_softmax(-1)
        return temperature**2 * F.kl_div(softened, targets, reduction="none").sum(-1)
    if variant not in ("paper", "code"):
        raise ValueError(f"criterion.soft_labels is {variant!r}; it must be one of {', '.join(SOFT_LABELS)}")
    loss = -(targets * student.float().log_softmax(-1)).sum(-1)
    return loss * temperature**2 if variant == "code" else loss


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
