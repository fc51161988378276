"""What is refused before a student of LUPI is trained: options that contradict each other or the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av_ssl.models.lupi import LupiStudent, LupiStudentConfig
    from av_ssl.targets.frozen_teacher import FrozenTeacher


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
