"""Whose statistics batch norm uses: those of all GPUs, of this batch, or the running ones."""

from __future__ import annotations

from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from av_ssl.modules.relative_transformer import DropPath


def synchronise_batch_norm(module: nn.Module) -> None:
    """Let every batch norm in a module compute its statistics over all GPUs, where several train it.

    fairseq does not do this.  To be called once the module is on the device that trains it, which in fairseq
    is after it was built: on CPUs torch has no synchronised batch norm, and each process keeps its own
    statistics.  Parameters stay the same objects, so that optimizers and wrappers do not notice.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1 and on_gpu(module):
        nn.SyncBatchNorm.convert_sync_batchnorm(module)


def on_gpu(module: nn.Module) -> bool:
    return next(module.parameters()).is_cuda


def use_batch_statistics(module: nn.Module, drop_path: bool = False) -> None:
    """Eval mode for everything but batch norms, which use the statistics of the batch (and ``drop_path``)."""
    module.eval()
    kinds = (_BatchNorm, DropPath) if drop_path else (_BatchNorm,)
    for part in module.modules():
        if isinstance(part, kinds):
            part.train()
