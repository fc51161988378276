"""DistillAV: distillation from speech foundation models (Zhang et al., Pattern Recognition 2025, arXiv
2502.05766).

A student sees masked, possibly noisy audio and video, one of them at times not at all; on every frame it
predicts what frozen teachers, which heard the clean speech, make of it: their vectors, and soft clusters of
them.  At hand were the paper's abstract and a description of its public code, not its body; the help of each
option names its origin.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq.models import register_model
from torch import Tensor

from av_ssl.data.manifest import Clip
from av_ssl.data.masking import StreamMasking
from av_ssl.data.spans import SpanMask
from av_ssl.data.teacher_batch import TeacherInput
from av_ssl.models.av_encoder import Source
from av_ssl.models.distillav_config import DistillAVConfig
from av_ssl.models.masked_encoder import MaskedAudioVisualEncoder
from av_ssl.models.teacher_heads import make_heads, open_targets
from av_ssl.modules.aligned_mtl import GradientBalancer
from av_ssl.targets.teacher_targets import TeacherTargets


@register_model("distillav", dataclass=DistillAVConfig)
class DistillAVModel(MaskedAudioVisualEncoder):
    """Student and heads; ``teacher_heads.*`` and the mask embeddings serve pre-training alone.

    The teachers are no part of it: they are opened when the first batch, or the data pipeline, asks for them.

    Raises:
        ValueError: no teachers are named.
    """

    cfg: DistillAVConfig

    def __init__(self, cfg: DistillAVConfig) -> None:
        super().__init__(cfg)
        if not cfg.teacher_shapes:
            raise ValueError(
                "model.teachers is empty: name the folders of teachers that `av-ssl targets teacher` makes"
            )
        sizes = {"final_dim": cfg.final_dim, "logit_temp": cfg.logit_temp}
        self.teacher_heads = make_heads(cfg.encoder_embed_dim, cfg.teacher_shapes, sizes)
        aligned = str(cfg.balance) == "aligned_mtl"
        self.balancer = GradientBalancer(str(cfg.gram)) if aligned else None
        self._targets: TeacherTargets | None = None

    @classmethod
    def build_model(cls, cfg: DistillAVConfig, task: Any = None) -> "DistillAVModel":
        return cls(cfg)

    @property
    def masking(self) -> StreamMasking:
        """What the data pipeline draws for each batch."""
        return self.stream_masking(loss_on=str(self.cfg.loss_on))

    def spans(self, probability: float, length: int) -> SpanMask:
        spans = super().spans(probability, length)
        return dataclasses.replace(spans, equal_counts=self.cfg.mask_equal_counts)

    # -- teachers --------------------------------------------------------------------------------------------

    @property
    def targets(self) -> TeacherTargets:
        if self._targets is None:
            self._targets = open_targets(self.cfg)
        return self._targets

    @property
    def needs_clean_waveform(self) -> bool:
        """Whether teachers hear the batch."""
        return any(self.targets.online)

    @property
    def needs_clean_audio(self) -> bool:
        """Whether filterbanks without noise are read, too; teachers hear waveforms."""
        return False

    def teacher_inputs(self, split: str, clips: Sequence[Clip]) -> list[TeacherInput]:
        """What the data pipeline has to know about the teachers."""
        return self.targets.inputs(split, clips)

    # -- student ---------------------------------------------------------------------------------------------

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any],
        frame_index: Tensor,
        teachers: Mapping[str, Any],
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the targets of all teachers on the frames that count.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` as the student hears and sees them
                before masking; ``waveform`` int16 ``[B, 640 T]``, clean, for teachers that run online.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.
            teachers: see :class:`av_ssl.data.teacher_batch.TeacherBatch`.

        Returns:
            ``features_pen`` (mean square of the student's features); ``predictions`` and ``targets``, one
            :class:`~av_ssl.models.teacher_heads.Prediction` and
            :class:`~av_ssl.targets.teacher_targets.Target` for each teacher; ``task_weights``, those of the
            previous backward pass (float64 ``[2 K]``, regression and clusters of each teacher in turn; None
            without balancing or before the first).
        """
        targets = self.targets(source, teachers)
        student, _ = self.student_features(source, padding_mask, masks, frame_index)
        x, penalty = self.encode_student(student, padding_mask, masks, frame_index)
        balancer = self.balancer if self.training else None
        return {
            "features_pen": penalty,
            "predictions": self.teacher_heads.predict(x, teachers["index"], balancer),
            "targets": targets,
            "task_weights": None if balancer is None else balancer.weights,
        }
