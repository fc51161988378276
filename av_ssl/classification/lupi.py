"""LUPI: an audio student learns the embeddings of an audio-visual teacher.

A. Hajavi, A. Etemad, "Audio Representation Learning by Distilling Video as Privileged Information", IEEE
Transactions on Artificial Intelligence, 2023 (arXiv 2302.02845).  We had only its abstract.  It says: teacher
and student consist of an encoder, in the sequential setting (clips cut into segments) an aggregator, and a
head; the teacher's embeddings (of encoder and aggregator) train the student; labels train the student's head;
inference needs no video.  All other choices are ours.  docs/methods/lupi.md has the results.

Three runs: a teacher (``av_classifier``); a student with ``phase=embed``, on any clips with video, as no
label is read; the student with ``phase=head``, on labelled clips, which needs neither video nor teacher.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model
from torch import Tensor, nn
from typing_extensions import Self

from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.checkpoints.loading import load
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.classification.classifier import AVClassifier, ClassifierConfig, check_choices
from av_ssl.classification.criterion import class_log, class_loss, reduce_class_log
from av_ssl.compat.keys import option
from av_ssl.data.classes import ClassList, SegmentBatch
from av_ssl.data.dataset import DataNeeds
from av_ssl.errors import DataError
from av_ssl.methods.criterion import Logs, MeanCriterion, log_means, logged
from av_ssl.methods.encoder_model import Source

# -- configuration -------------------------------------------------------------------------------------------

EMBEDDING_PHASE = "embed"
PHASES = (EMBEDDING_PHASE, "head", "concurrent")
GRADIENT_POLICIES = ("decoupled", "joint")


@dataclass
class LupiStudentConfig(ClassifierConfig):
    """How the student is trained."""

    streams: str = option("audio", "streams that the student takes")
    teacher_path: str = option("", "checkpoint of an av_classifier; needed for training only")
    phase: ChoiceEnum(PHASES) = option(  # type: ignore[valid-type]
        "concurrent",
        "embed, then head: the teacher's embeddings train encoder and aggregator; then labels train the "
        "head, the rest is frozen (docs/methods/lupi.md); concurrent: both in one run, which soft labels "
        "need",
    )
    init_student_from: str = option(
        "", "student whose encoder and aggregator are the initial ones; phase=head needs it"
    )
    grad_policy: ChoiceEnum(GRADIENT_POLICIES) = option(  # type: ignore[valid-type]
        "decoupled",
        "decoupled: labels train the head only (our reading of the abstract); joint: encoder and "
        "aggregator, too, as the baseline of soft labels needs",
    )
    embedding_norm: str = option(
        "standardize",
        "standardize: mean 0 and variance 1 for each channel of the teacher's embeddings (for distance=mse, "
        "which depends on their scale); none (for distance=nmse, which does not)",
    )
    # Keys of version 0.1 with one value left.  They stay so that a checkpoint with another one is refused.
    agg_grad_to_encoder: bool = option(True, "must be true")
    agg_trained_by: str = option("teacher", "must be teacher")
    hint_dim: int = option(0, "must be 0")


# -- teacher -------------------------------------------------------------------------------------------------

SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-4


class FrozenTeacher:
    """Embeddings and logits of a classifier that does not change.

    Not an ``nn.Module``: optimizer, distributed wrapper, ``train()`` and checkpoints must not see it.  The
    ``norm`` of the embeddings is ``standardize`` or ``none``.
    """

    def __init__(self, model: AVClassifier, norm: str = "standardize") -> None:
        self.model = model.requires_grad_(False).eval()
        self.norm = norm

    @classmethod
    def load(
        cls, cfg: LupiStudentConfig, task_cfg: Mapping[str, Any], keys: tuple[str, ...]
    ) -> "FrozenTeacher":
        """Read the teacher of a student.

        Args:
            cfg, task_cfg: of the student.
            keys: of the task that must be as they were for the teacher.

        Raises:
            DataError: the file holds no classifier, or one whose input or embeddings do not fit the student.
        """
        path = cfg.teacher_path
        model = load(path)
        if not isinstance(model, AVClassifier) or model.header is None:
            raise DataError(
                f"model.teacher_path: {path} holds {type(model).__name__}, not a classifier with a head; "
                "train an av_classifier first"
            )
        own = shared_settings(cfg, task_cfg, keys)
        for key, value in shared_settings(model.cfg, model.task_cfg, keys).items():
            if key in own and str(own[key]) != str(value):
                raise DataError(
                    f"{key}={own[key]}, but the teacher {path} was trained with {value}: set the same"
                )
        check_choices("model", cfg)
        return cls(model, cfg.embedding_norm)

    def check_classes(self, classes: ClassList) -> None:
        """Raise DataError unless its classes are those of the student: probabilities go by position."""
        theirs = list(getattr(self.model, "class_names", ()))
        if theirs != classes.names:
            raise DataError(
                f"criterion.soft_labels: {classes.origin} has other classes than the teacher ({len(theirs)}: "
                f"{', '.join(theirs[:5])}, ...); use the list that it was trained with"
            )

    @torch.no_grad()
    def __call__(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
    ) -> dict[str, Tensor]:
        """Compute ``teacher_enc`` float32 ``[B, K, D]``, ``teacher_logits [B, C]`` and, with an aggregator,
        ``teacher_agg [B, Z]`` from clean audio and video.
        """
        if next(self.model.parameters()).device != padding_mask.device:
            self.model.to(padding_mask.device)  # the checkpoint was read before the student was moved
        clean = source.get("audio_clean")
        if clean is not None:
            source = {**source, "audio": clean}
        output = self.model(source, padding_mask, frame_index, segments)
        targets = {
            "teacher_enc": self.target(output["enc"], self.model.encoder.norm),
            "teacher_logits": output["logits"].float(),
        }
        if self.model.aggregator is not None:
            targets["teacher_agg"] = self.target(output["agg"], self.model.aggregator.norm)
        return targets

    def target(self, embedding: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        """Standardise ``embedding [..., D]``, the output of ``norm``.

        A batch norm's output has mean ``bias`` and deviation ``|weight|`` over the clips that it was trained
        on, so no further pass over them is needed.
        """
        if self.norm == "none":
            return embedding.float()
        deviation = norm.weight.float().abs().clamp(min=SMALLEST_DEVIATION)
        return (embedding.float() - norm.bias.float()) / deviation


def shared_settings(
    cfg: ClassifierConfig, task_cfg: Mapping[str, Any], keys: tuple[str, ...]
) -> dict[str, Any]:
    """What teacher and student must have in common, by its name on the command line."""
    frames, hop = int(task_cfg["segment_frames"]), int(task_cfg["segment_hop"])
    settings = {f"task.{key}": task_cfg[key] for key in keys if key in task_cfg}
    settings |= {"task.segment_frames": frames, "model.embed_dim": cfg.embed_dim}
    if frames:
        settings |= {"task.segment_hop": hop or frames, "model.aggregate_dim": cfg.aggregate_dim}
    return settings


# -- student -------------------------------------------------------------------------------------------------


@register_model("lupi_student", dataclass=LupiStudentConfig)
class LupiStudent(AVClassifier):
    """Classifier of audio that is trained with a frozen teacher: None for scoring and for ``phase=head``."""

    cfg: LupiStudentConfig

    def __init__(
        self, cfg: LupiStudentConfig, pretrained: StoredModel | None, teacher: Optional[FrozenTeacher] = None
    ) -> None:
        super().__init__(cfg, pretrained, with_header=str(cfg.phase) != EMBEDDING_PHASE)
        self.phase = str(cfg.phase)
        self.joint = str(cfg.grad_policy) == "joint"
        self.teacher = teacher
        for part in self.frozen_parts():
            part.requires_grad_(False)

    @classmethod
    def build_model(cls, cfg: LupiStudentConfig, task: Any) -> Self:
        """Build a student; for training with the task's teacher and the weights of ``init_student_from``."""
        training, phase = task.for_training, str(cfg.phase)
        teacher = getattr(task, "teacher", None) if training else None
        if training and phase != "head" and teacher is None:
            raise DataError(f"model.phase={phase}: name the teacher in model.teacher_path")
        if training and phase == "head" and teacher is not None:
            raise DataError("model.phase=head: only labels train the head; leave model.teacher_path empty")
        if training and phase == "head" and not cfg.init_student_from:
            raise DataError("model.phase=head: name the student of phase=embed in model.init_student_from")
        student = cls(cfg, task.pretrained, teacher)
        if training and cfg.init_student_from:
            student.start_from(cfg.init_student_from)
        return student

    def start_from(self, path: str) -> None:
        """Copy encoder and aggregator of an earlier student, which must be of the same kind and size."""
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

    def frozen_parts(self) -> list[nn.Module]:
        """What ``phase=head`` leaves as it is: the parts that the teacher has trained."""
        parts = (self.encoder, self.aggregator) if self.phase == "head" else ()
        return [part for part in parts if part is not None]

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but keep frozen parts in eval mode: fairseq calls this before every update."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    @property
    def data_needs(self) -> DataNeeds:
        """Clean audio for the teacher."""
        return DataNeeds(clean_audio=self.teacher is not None)

    def header_input(self, clip: Tensor) -> Tensor:
        """Stop the gradient of labels before encoder and aggregator unless ``grad_policy=joint``."""
        return clip if self.joint else clip.detach()

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        segments: SegmentBatch | None = None,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the output of a classifier and, with a teacher, its targets."""
        output = super().forward(source, padding_mask, frame_index, segments, target)
        if self.teacher is not None:
            output.update(self.teacher(source, padding_mask, frame_index, segments))
        return output


def check_training(student: LupiStudent, losses: "LupiCriterionConfig") -> None:
    """Raise DataError when the losses leave a part of a student untrained, or need what its phase lacks."""
    if str(losses.soft_labels) != "none" and student.phase != "concurrent":
        raise DataError(
            f"criterion.soft_labels={losses.soft_labels} needs a teacher and a head: set "
            f"model.phase=concurrent instead of {student.phase}"
        )
    trained_by_labels = student.header is not None and student.joint and losses.gamma > 0
    if student.phase == "head" or trained_by_labels:
        return
    key, part = ("alpha", "encoder") if student.aggregator is None else ("beta", "aggregator")
    weight = getattr(losses, key)
    if weight <= 0:
        raise DataError(
            f"criterion.{key}={weight}: nothing trains the {part} with model.phase={student.phase}; set "
            f"criterion.{key} above 0, or, to train with labels, model.phase=concurrent and "
            "model.grad_policy=joint"
        )


# -- losses --------------------------------------------------------------------------------------------------


def embedding_distance(student: Tensor, teacher: Tensor, name: str) -> Tensor:
    """Distances float32 ``[...]`` between vectors ``[..., D]``: ``mse`` (mean over channels), or ``nmse``
    (squared distance of unit vectors).

    >>> import torch
    >>> u, v = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 5.0])
    >>> [round(embedding_distance(u, v, name).item(), 4) for name in ("mse", "nmse")]
    [5.0, 0.4]
    """
    if name == "nmse":
        return 2 * (1 - cosine(student, teacher))
    return (student.float() - teacher.float()).square().mean(-1)


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Cosines float32 ``[...]`` of vectors ``[..., D]``."""
    return F.cosine_similarity(u.float(), v.float(), dim=-1, eps=SMALLEST_NORM)


def mean_over_segments(values: Tensor, empty: Tensor) -> Tensor:
    """Mean ``[B]`` of ``[B, K]`` over the segments of each clip: long clips weigh no more than short ones."""
    return values.masked_fill(empty, 0).sum(1) / (~empty).sum(1).clamp(min=1)


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Generalised distillation (Lopez-Paz et al., 2016): cross-entropy float32 ``[B]`` from softened labels.

    Both logits ``[B, C]`` are without margin; the temperature divides the teacher's only, as in that paper.
    """
    targets = (teacher.float() / temperature).softmax(-1)
    return -(targets * student.float().log_softmax(-1)).sum(-1)


MEANS = ("loss", "loss_enc", "loss_agg", "loss_distill", "loss_class", "loss_soft", "cos_enc", "cos_agg")
"""Keys that are logged as means over clips."""


@dataclass
class LupiCriterionConfig(FairseqDataclass):
    """Weights of the terms, each a mean over clips."""

    alpha: float = option(1.0, "weight of the encoder's embedding")
    beta: float = option(1.0, "weight of the aggregator's embedding")
    gamma: float = option(1.0, "weight of the labels, hard and soft")
    distance: str = option(
        "mse",
        "between embeddings of student and teacher: mse, for standardised targets; nmse, between unit "
        "vectors, for speakers, who are compared by cosines",
    )
    label_smoothing: float = option(0.0, "share of a label given to all classes")
    soft_labels: str = option(
        "none",
        "paper: learn the teacher's class probabilities, too (generalised distillation); with alpha=beta=0 "
        "and model.grad_policy=joint this is the baseline of docs/methods/lupi.md",
    )
    imitation: float = option(0.5, "share of soft labels against hard ones, 0 to 1")
    temperature: float = option(2.0, "divides the teacher's logits")


@register_criterion("lupi", dataclass=LupiCriterionConfig)
class LupiCriterion(MeanCriterion):
    """``alpha d(enc) + beta d(agg) + gamma [(1 - imitation) CE + imitation soft]``, a mean over clips.

    d(enc) is a mean over the segments of a clip.  Without soft labels the bracket is the cross-entropy.  A
    student without head (``phase=embed``) has no bracket, one without teacher (``phase=head``) no distances.
    """

    def __init__(self, cfg: LupiCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_choices("criterion", cfg)
        if not 0 <= cfg.imitation <= 1 or cfg.temperature <= 0:
            raise DataError(
                f"criterion.imitation={cfg.imitation}, criterion.temperature={cfg.temperature}: imitation is "
                "a share from 0 to 1, temperature is above 0"
            )

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        target = sample["target"]
        output = model(target=target, **sample["net_input"])
        sums: dict[str, Tensor] = {}
        loss = output["enc"].new_zeros((), dtype=torch.float32)
        if "teacher_enc" in output:
            sums |= self.embedding_sums(output)
            loss = loss + sums["loss_distill"]
        if "logits" in output:
            sums |= self.label_sums(output, target)
            loss = loss + self.cfg.gamma * sums["loss_labels"]
        means = {key: value for key, value in sums.items() if key in MEANS}
        log = logged(sample, len(target), loss=loss, **means)
        if "logits" in output:
            log |= class_log(output["logits"], target, model.training)
        return loss, len(target), log

    def embedding_sums(self, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Distances and cosines to the teacher's embeddings, summed over clips; needs no labels."""
        cfg, distance = self.cfg, str(self.cfg.distance)
        student, teacher, empty = output["enc"], output["teacher_enc"], output["empty"]
        encoder = mean_over_segments(embedding_distance(student, teacher, distance), empty).sum()
        sums = {"loss_enc": encoder, "loss_distill": cfg.alpha * encoder}
        sums["cos_enc"] = mean_over_segments(cosine(student, teacher), empty).sum()
        if "teacher_agg" in output:
            student, teacher = output["agg"], output["teacher_agg"]
            sums["loss_agg"] = embedding_distance(student, teacher, distance).sum()
            sums["loss_distill"] = sums["loss_distill"] + cfg.beta * sums["loss_agg"]
            sums["cos_agg"] = cosine(student, teacher).sum()
        return sums

    def label_sums(self, output: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Losses of labels and of the teacher's class probabilities, summed over clips."""
        cfg = self.cfg
        hard = class_loss(output["margin_logits"], target, cfg.label_smoothing).sum()
        if str(cfg.soft_labels) == "none" or "teacher_logits" not in output:
            return {"loss_class": hard, "loss_labels": hard}
        soft = soft_label_loss(output["logits"], output["teacher_logits"], cfg.temperature).sum()
        labels = (1 - cfg.imitation) * hard + cfg.imitation * soft
        return {"loss_class": hard, "loss_soft": soft, "loss_labels": labels}

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        log_means(logging_outputs, MEANS)
        reduce_class_log(logging_outputs)
