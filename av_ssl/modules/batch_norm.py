"""Whose statistics batch norm uses: those of all GPUs, of this batch, or the running ones."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from av_ssl.modules.relative_transformer import DropPath

Module = TypeVar("Module", bound=nn.Module)


def synchronise_batch_norm(module: Module) -> Module:
    """Let every batch norm compute its statistics over all GPUs, where several train; else change nothing.

    fairseq does not do this. It must happen before the model is wrapped for distributed training; on CPUs
    (gloo) torch has no synchronised batch norm, and each process keeps its own statistics.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return module
    if distributed.get_world_size() == 1 or not torch.cuda.is_available():
        return module
    converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return converted


def use_batch_statistics(module: nn.Module, drop_path: bool = False) -> None:
    """Eval mode for everything but batch norms, which use the statistics of the batch (and ``drop_path``)."""
    module.eval()
    kinds = (_BatchNorm, DropPath) if drop_path else (_BatchNorm,)
    for part in module.modules():
        if isinstance(part, kinds):
            part.train()
