"""Which convolutions torch computes, and in which dtype."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    """Keeps the dtype and the sizes of every convolution that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, torch.Size]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.seen.append((args[0].dtype, args[1].shape))
        if func is torch.ops.aten.convolution_backward.default:
            self.seen.append((args[1].dtype, args[2].shape))
        return func(*args, **(kwargs or {}))

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {dtype for dtype, _ in self.seen}
