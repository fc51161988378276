"""LUPI: an audio student that learns the embeddings of an audio-visual teacher.

A. Hajavi, A. Etemad, "Audio Representation Learning by Distilling Video as Privileged Information", IEEE
Transactions on Artificial Intelligence, 2023 (arXiv 2302.02845).  Its abstract alone was at hand.  From it:
teacher and student consist of an encoder, in the sequential setting an aggregator, and a task header; the
teacher's embeddings (in the sequential setting of encoder and aggregator both) train the student, whose
header learns from the ground truth; at inference there is no video.  Everything else is [ours], and an
option.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn
from typing_extensions import Self

from av_ssl.data.segments import SegmentBatch
from av_ssl.models.av_encoder import Source
from av_ssl.models.classifier import AVClassifier, ClassifierConfig
from av_ssl.models.encoders import CheckpointError
from av_ssl.models.lupi_checks import check_options, check_teacher
from av_ssl.models.pretrained import read_checkpoint
from av_ssl.targets.target_norm import TARGET_NORMS

if TYPE_CHECKING:
    from av_ssl.targets.frozen_teacher import FrozenTeacher

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
        load_weights: read the pre-trained encoder's weights.
        teacher: None for scoring, and for ``phase=head``.

    Raises:
        ValueError: options contradict each other, or the teacher's embeddings are of another size.
    """

    cfg: LupiStudentConfig

    def __init__(
        self, cfg: LupiStudentConfig, load_weights: bool, teacher: Optional["FrozenTeacher"] = None
    ) -> None:
        super().__init__(cfg, load_weights, with_header=str(cfg.phase) != "embed")
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
        student = cls(cfg, starting, teacher)
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
