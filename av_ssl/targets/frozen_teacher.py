"""A trained classifier as the source of targets: frozen, in eval mode, on clean audio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from av_ssl.data.segments import Segmentation
from av_ssl.errors import DataError
from av_ssl.targets.target_norm import TARGET_NORMS, normalized

if TYPE_CHECKING:
    from av_ssl.data.class_labels import ClassList
    from av_ssl.data.segments import SegmentBatch
    from av_ssl.models.av_encoder import Source
    from av_ssl.models.classifier import AVClassifier


class FrozenTeacher:
    """Embeddings and logits of a classifier that never changes.

    It is not an ``nn.Module`` on purpose: optimizer, distributed wrapper, ``train()`` and checkpoints must
    not see it.

    Args:
        model: any classifier with a header.
        norm: of its embeddings, see :func:`~av_ssl.targets.target_norm.normalized`.
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
    ) -> FrozenTeacher:
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
        from av_ssl.models.classifier import AVClassifier
        from av_ssl.models.loading import load

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
