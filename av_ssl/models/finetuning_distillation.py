"""Speech teachers in fine-tuning: heads on the encoder that is fine-tuned, and their targets.

That DistillAV distils in fine-tuning, too, is in its abstract (Zhang et al., 2025, arXiv 2502.05766); how is
not public: all of this is our choice [ours].  The heads are those of pre-training, on the same layer, and the
teachers hear the clean audio whatever the recogniser sees.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from av_ssl.data.manifest import Clip
from av_ssl.data.teacher_batch import TeacherInput
from av_ssl.models.teacher_heads import HEADS_PREFIX, TeacherHeads, make_heads, open_targets
from av_ssl.targets.teacher_targets import TeacherTargets

logger = logging.getLogger(__name__)

HEAD_SIZES = {"final_dim": 256, "logit_temp": 0.1}
"""Of heads that no checkpoint has: pre-training's defaults."""


class RepresentationDistillation:
    """Targets of speech teachers and what a recogniser's encoder predicts of them; holds no parameters.

    Args:
        cfg: see :class:`~av_ssl.models.teacher_heads.TeachersConfig`; it names at least one teacher.
        heads: modules of the encoder.
    """

    def __init__(self, cfg: Any, heads: TeacherHeads) -> None:
        self.cfg = cfg
        self.heads = heads
        self._targets: TeacherTargets | None = None

    @property
    def targets(self) -> TeacherTargets:
        if self._targets is None:
            self._targets = open_targets(self.cfg)
        return self._targets

    def inputs(self, split: str, clips: Sequence[Clip]) -> list[TeacherInput]:
        """What the data pipeline has to know about the teachers."""
        return self.targets.inputs(split, clips)

    def __call__(self, x: Tensor, source: Mapping[str, Any], teachers: Mapping[str, Any]) -> dict[str, Any]:
        """``predictions`` and ``targets`` of each teacher, for the encoder's output ``[B, T, C]``."""
        return {
            "predictions": self.heads.predict(x, teachers["index"]),
            "targets": self.targets(source, teachers),
        }


def starting_heads(
    channels: int, cfg: Any, pretrained: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> TeacherHeads:
    """Heads for the teachers of fine-tuning; those that were pre-trained for the same teacher go on.

    Args:
        channels: C of the encoder.
        cfg: of fine-tuning, with ``teacher_shapes``.
        pretrained: the pre-trained model's configuration.
        tensors: its tensors; none for a start from scratch.
    """
    known = list(pretrained.get("teacher_shapes") or [])
    sizes = pretrained if known else HEAD_SIZES
    heads = make_heads(channels, cfg.teacher_shapes, sizes)
    for number, shape in enumerate(cfg.teacher_shapes):
        found = known.index(dict(shape)) if dict(shape) in known else None
        prefix = f"{HEADS_PREFIX}{found}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if own:
            nn.Module.load_state_dict(heads[number], own)
        logger.info(
            "head for teacher %s: %s", cfg.teachers[number],
            "as pre-trained" if own else "starts at random, it was not pre-trained with these clusters",
        )  # fmt: skip
    return heads
