"""A small data folder and a small model, for making targets."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.data_folder import write_data
from tests.methods.helpers import TINY, tiny_av2vec

__all__ = ["write_checkpoint", "write_data"]


def write_checkpoint(path: Path) -> Path:
    """A fused model of three layers, saved as fairseq does."""
    task = {"_name": "av_pretraining", "normalize": True, "image_crop_size": 22}
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": task, "criterion": {"_name": "av2vec"}}
    torch.save({"args": None, "cfg": cfg, "model": tiny_av2vec().state_dict()}, path)
    return path
