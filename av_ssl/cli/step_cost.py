"""Multiply-adds of an update: passes of what is trained, of what is frozen, and of a teacher beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from av_ssl.cli.recipe_cost import multiply_adds
from av_ssl.data.segments import Segmentation
from av_ssl.models.classifier import AVClassifier
from av_ssl.models.lupi import LupiStudent

TRAINING_PASSES = 3  # forward and backward, in forward passes: what the benchmark counts as useful work, too


@dataclass(frozen=True)
class StepCost:
    """Multiply-adds a frame.

    Args:
        forward: of a forward pass of the student.
        passes: of these in an update; one where nothing in it is trained.
        teacher: of a teacher's forward pass, 0 without one.
        teacher_bytes: of the weights of a teacher that is no part of the model.
        teacher_note: what to say of the teacher.
    """

    forward: float
    passes: int = TRAINING_PASSES
    teacher: float = 0.0
    teacher_bytes: int = 0
    teacher_note: str = ""

    @property
    def update(self) -> float:
        return self.passes * self.forward + self.teacher


def step_cost(cfg: Any, task: Any, model: nn.Module, longest: int) -> StepCost:
    """What a frame of a recipe's batches costs.

    Of classifiers the encoder counts; what is behind it runs once a clip or segment.

    Args:
        cfg: the recipe.
        task, model: built of it.
        longest: frames of a training crop.

    Raises DataError when the teacher's file cannot be used.
    """
    picture = cfg.task.image_crop_size
    if not isinstance(model, AVClassifier):
        return StepCost(multiply_adds(model, picture))
    segments = Segmentation.of(cfg.task.segment_frames, cfg.task.segment_hop)
    repeated = 1.0 if segments is None else len(segments.starts(longest)) * segments.length / longest
    backbone = model.encoder.backbone
    trained = any(parameter.requires_grad for parameter in backbone.parameters())
    forward = repeated * multiply_adds(backbone, picture, frozen=True)
    passes = TRAINING_PASSES if trained else 1
    if not isinstance(model, LupiStudent) or model.phase == "head":
        return StepCost(forward, passes)
    if not cfg.model.teacher_path:
        note = "; without the teacher, whose file is not given: add model.teacher_path=TEACHER"
        return StepCost(forward, passes, teacher_note=note)
    teacher = task.load_teacher(cfg.model).model
    cost = repeated * multiply_adds(teacher.encoder.backbone, picture, frozen=True)
    weights = sum(4 * parameter.numel() for parameter in teacher.parameters())
    return StepCost(forward, passes, cost, weights, f"; {cost / 1e6:,.0f} M of the teacher")
