"""Convolutions whose results in half precision are right on CPUs, too.

On a CPU torch hands convolutions in bfloat16 to oneDNN.  Some of its kernels give wrong numbers without an
error (seen in oneDNN 3.12 of torch 2.13):

* On cores with AMX, kernels of 8 or more positions over 2 to 14 channels a group give a wrong output.
* With and without AMX, convolutions with a stride whose output is one position wide leave parts of their
  weight gradient uninitialised.  So gradients differ from run to run, and at times are not finite.  On cores
  with AMX, the output can be wrong, too.
* Of convolutions over three axes, more are wrong; some write beyond their memory and end the process.

Convolutions of that kind are computed in float32, forward and backward.  The condition is wider than what was
seen to be wrong, and it does not ask for the version or the processor: the excluded convolutions are cheap.
Models of full width have none on clips of usual size but the first layer of speech models.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# In torch 2.1 and 2.2 it is elsewhere.
is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", torch._utils.is_compiling)
HALF_PRECISION = (torch.bfloat16, torch.float16)
WIDEST_KERNEL = 7
"""Positions of a kernel's last axis that no number of channels makes wrong."""
CHANNEL_BLOCK = 16
"""Wider kernels are right where the channels of a group are a multiple of this."""

Sizes = int | Sequence[int] | str


def convolve(
    convolution: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv1d`` or one of its relatives, in float32 where half precision may be wrong on this device.

    The output has the dtype of ``input``.
    """
    if input.device.type != "cpu" or right_in_half_precision(input, weight, stride, padding, dilation):
        return convolution(input, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        kernel, shift = in_float32(weight), None if bias is None else in_float32(bias)
        output = convolution(in_float32(input), kernel, shift, stride, padding, dilation, groups)
    return output.to(input.dtype)


def in_float32(x: Tensor) -> Tensor:
    """``x``; in float32 if it is of half precision."""
    return x.float() if x.dtype in HALF_PRECISION else x


def right_in_half_precision(
    input: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> bool:
    """Whether a CPU computes this convolution rightly in half precision.

    Args:
        weight: kernels ``[C, channels of a group, ...]`` over one or two axes; others are not trusted, nor is
            padding that is given by name.
    """
    channels, *_, width = weight.shape[1:]
    if weight.dim() > 4 or (width > WIDEST_KERNEL and channels % CHANNEL_BLOCK):
        return False
    if isinstance(stride, str) or isinstance(padding, str) or isinstance(dilation, str):
        return False
    room = input.size(-1) + 2 * last(padding) - last(dilation) * (width - 1)
    return room > last(stride)  # the output is wider than one position


def last(sizes: int | Sequence[int]) -> int:
    """The size that belongs to the last axis."""
    return sizes if isinstance(sizes, int) else sizes[-1]


class Conv1d(nn.Conv1d):
    """``nn.Conv1d`` with zero padding, by :func:`convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(
            F.conv1d, input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with zero padding, by :func:`convolve`.

    On a CPU, kernels of size 1 are linear layers, and small maps stand side by side, see :func:`in_rows`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and not torch.onnx.is_in_onnx_export():
            if self.kernel_size == (1, 1) and self.padding == (0, 0):
                rows, columns = self.stride
                pixels = input.permute(0, 2, 3, 1)[:, ::rows, ::columns]
                return F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
            if self.kernel_size == (3, 3) and self.padding == self.dilation == (1, 1):
                small = SMALL_MAP_HALF if input.dtype in HALF_PRECISION else SMALL_MAP
                few = input.size(-1) <= small * self.stride[1] and len(input) > 1
                if few and not is_compiling():  # inductor fails on rows of a number that may change
                    return in_rows(self.convolved, input, self.stride[1])
        return self.convolved(input)

    def convolved(self, input: Tensor) -> Tensor:
        return convolve(
            F.conv2d, input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


SMALL_MAP, SMALL_MAP_HALF = 4, 7
"""Columns of an output map up to which oneDNN is faster on maps side by side: in float32 up to twice, in half
precision up to five times."""
MAPS_IN_ROW = 16


def in_rows(convolution: Callable[[Tensor], Tensor], maps: Tensor, stride: int) -> Tensor:
    """A convolution of size 3 with padding 1 of maps ``[N, C, H, W]``, several side by side.

    Columns of zeros between them, which the padding would give each alone, keep them apart.
    """
    count, width = len(maps), maps.size(-1)
    together = min(MAPS_IN_ROW, count)
    gap = 1 + (-width - 1) % stride  # the next map, too, starts at a column that the stride reaches
    rows = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 0, gap, 0, 0, 0, -count % together))
    rows = rows.unflatten(0, (-1, together)).transpose(1, 2).flatten(2, 3)  # [., H, together * (W + gap), C]
    y = convolution(rows.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    y = y.unflatten(2, (together, -1))[:, :, :, : (width - 1) // stride + 1].transpose(1, 2)
    return y.flatten(0, 1)[:count].permute(0, 3, 1, 2)


class _Convolutions(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.conv1d, torch.conv2d, torch.conv3d):
            return convolve(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def right_convolutions(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which models of other packages, too, compute their convolutions by :func:`convolve`."""
    return _Convolutions() if device.type == "cpu" else nullcontext()
