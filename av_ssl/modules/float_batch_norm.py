"""Batch norms that stay in float32 in a model of half precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Change = Callable[[Tensor], Tensor]


class FloatBatchNorms(nn.Module):
    """A module of which no batch norm, however deep, is cast to half precision with the rest.

    Running statistics move by less than half precision resolves, and cuDNN normalises half-precision input
    by float32 weights alone.  Such a batch norm gives its output in the input's dtype.
    """

    def _apply(self, fn: Change, recurse: bool = True) -> FloatBatchNorms:
        # Not in a class of the batch norms' own: conversion to SyncBatchNorm would lose it.
        if recurse:
            apply_to_children(self, fn)
        return super()._apply(fn, recurse=False)


def apply_to_children(module: nn.Module, fn: Change) -> None:
    for child in module.children():
        if isinstance(child, _BatchNorm):
            child._apply(without_rounding(fn))
        else:
            apply_to_children(child, fn)
            child._apply(fn, recurse=False)


def without_rounding(fn: Change) -> Change:
    """What ``fn`` does to a module's tensors (move, cast, ...), but no cast of floats to half precision."""

    def apply(tensor: Tensor) -> Tensor:
        changed = fn(tensor)
        if tensor.is_floating_point() and changed.dtype in (torch.float16, torch.bfloat16):
            return tensor.to(changed.device)
        return changed

    return apply
