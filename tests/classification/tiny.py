"""Tiny classifiers and students, batches for them, and their losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from av_ssl.classification.classifier import AVClassifier, ClassifierConfig
from av_ssl.classification.lupi import (
    FrozenTeacher,
    LupiCriterion,
    LupiCriterionConfig,
    LupiStudent,
    LupiStudentConfig,
)
from av_ssl.data.classes import Segmentation
from tests.methods.helpers import source

TINY = {
    "streams": "av", "audio_input": "filterbank", "segment_frames": 0, "frontend_dim": 16, "audio_width": 2,
    "audio_blocks": [1, 1, 1, 1], "video_width": 2, "embed_dim": 8, "aggregate_dim": 6, "num_classes": 3,
    "image_mean": 0.421, "image_std": 0.165, "normalize": True,
}  # fmt: skip
TASK = {
    "_name": "av_classification", "normalize": True, "image_crop_size": 88, "audio_input": "filterbank",
    "segment_frames": 0, "segment_hop": 0, "image_mean": 0.421, "image_std": 0.165,
}  # fmt: skip
"""What a checkpoint keeps of their task."""


def configured(structure: Any, **options: Any) -> Any:
    return OmegaConf.merge(OmegaConf.structured(structure()), options)


def classifier(seed: int = 0, **options: Any) -> AVClassifier:
    torch.manual_seed(seed)
    return AVClassifier(configured(ClassifierConfig, **{**TINY, **options}), None)


def student(teacher: AVClassifier | None = None, seed: int = 1, **options: Any) -> LupiStudent:
    torch.manual_seed(seed)
    cfg = configured(LupiStudentConfig, **{**TINY, "streams": "audio", **options})
    frozen = None if teacher is None else FrozenTeacher(teacher, cfg.embedding_norm)
    return LupiStudent(cfg, None, teacher=frozen)


def criterion(**options: Any) -> LupiCriterion:
    return LupiCriterion(configured(LupiCriterionConfig, **options), None)


def batch(
    lengths: list[int], frames: int | None = None, segment: int = 0, hop: int = 0, seed: int = 0
) -> dict[str, Any]:
    """`net_input` as the data pipeline gives it."""
    frames = frames or max(lengths)
    net_input = source(lengths, frames, size=16, seed=seed)
    if segment:
        net_input["segments"] = Segmentation(segment, hop or segment).segments(lengths, frames)
    return net_input


def sample(segment: int = 4, seed: int = 0) -> dict[str, Any]:
    """Two clips with classes 0 and 2."""
    net_input = batch([9, 4], segment=segment, seed=seed)
    return {"net_input": net_input, "target": torch.tensor([0, 2]), "ntokens": 13, "nsentences": 2}


def task(**parts: Any) -> Any:
    """What models ask of a task."""
    return SimpleNamespace(**{"for_training": False, "pretrained": None, "teacher": None, **parts})
