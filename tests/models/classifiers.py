"""Tiny classifiers and students, and batches for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from av_ssl.classification.classifier import AVClassifier, ClassifierConfig
from av_ssl.classification.lupi import FrozenTeacher, LupiStudent, LupiStudentConfig
from av_ssl.data.classes import Segmentation
from tests.methods.helpers import source

TINY = {
    "streams": "av", "audio_input": "filterbank", "segment_frames": 0, "frontend_dim": 16, "audio_width": 2,
    "audio_blocks": [1, 1, 1, 1], "video_width": 2, "embed_dim": 8, "aggregate_dim": 6, "num_classes": 3,
    "image_mean": 0.421, "image_std": 0.165, "normalize": True,
}  # fmt: skip


def classifier(seed: int = 0, **options: Any) -> AVClassifier:
    torch.manual_seed(seed)
    cfg = OmegaConf.merge(OmegaConf.structured(ClassifierConfig()), {**TINY, **options})
    return AVClassifier(cfg, None)


def student(teacher: AVClassifier | None = None, seed: int = 1, **options: Any) -> LupiStudent:
    torch.manual_seed(seed)
    options = {**TINY, "streams": "audio", "target_norm": "standardize", **options}
    cfg = OmegaConf.merge(OmegaConf.structured(LupiStudentConfig()), options)
    frozen = None if teacher is None else FrozenTeacher(teacher, str(cfg.target_norm))
    return LupiStudent(cfg, None, teacher=frozen)


def batch(
    lengths: list[int], frames: int | None = None, segment: int = 0, hop: int = 0, seed: int = 0
) -> dict[str, Any]:
    """`net_input` as the data pipeline gives it."""
    frames = frames or max(lengths)
    net_input = source(lengths, frames, size=16, seed=seed)
    if segment:
        net_input["segments"] = Segmentation(segment, hop or segment).draw_up(lengths, frames)
    return net_input


def task(**parts: Any) -> Any:
    """What models ask of a task."""
    return SimpleNamespace(**{"starts_from_pretrained": False, "pretrained": None, "teacher": None, **parts})
