"""Operations of the models in bfloat16 on this machine's CPU, against float32."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from av_ssl.modules.convolution import convolve

LARGEST_ERROR = 0.02
"""Relative error that rounding to bfloat16 explains; it is about 0.002 for right kernels."""
REPEATS = 3
"""Kernels that read uninitialised memory are wrong at times."""

Operation = tuple[Callable[..., Tensor], list[tuple[int, ...]]]


def convolution(
    operation: Callable[..., Tensor], stride: int, padding: int, groups: int = 1
) -> Callable[..., Tensor]:
    """A function of input and kernels; ``operation`` is ``F.conv1d`` or ``F.conv2d``."""
    return lambda x, weight: convolve(operation, x, weight, None, stride, padding, 1, groups)


OPERATIONS: dict[str, Operation] = {
    "7 x 7 convolution": (convolution(F.conv2d, 2, 3), [(2, 5, 44, 44), (64, 5, 7, 7)]),
    "3 x 3 convolution": (convolution(F.conv2d, 1, 1), [(2, 64, 11, 11), (64, 64, 3, 3)]),
    "3 x 3 convolution, stride 2": (convolution(F.conv2d, 2, 1), [(2, 64, 11, 11), (128, 64, 3, 3)]),
    "3 x 3 convolution, stride 2, to one pixel": (
        convolution(F.conv2d, 2, 1),
        [(20, 8, 1, 1), (16, 8, 3, 3)],
    ),
    "1 x 1 convolution, stride 2": (convolution(F.conv2d, 2, 0), [(2, 64, 11, 11), (128, 64, 1, 1)]),
    "3 x 3 convolution of few channels": (convolution(F.conv2d, 2, 1), [(2, 16, 26, 50), (32, 16, 3, 3)]),
    "convolution of a waveform": (convolution(F.conv1d, 4, 38), [(2, 1, 1280), (64, 1, 80)]),
    "1-D convolution": (convolution(F.conv1d, 2, 1), [(2, 64, 160), (128, 64, 3)]),
    "positional convolution, 48 channels a group": (
        convolution(F.conv1d, 1, 64, 4),
        [(1, 192, 25), (192, 48, 128)],
    ),
    "positional convolution, 8 channels a group": (
        convolution(F.conv1d, 1, 64, 2),
        [(2, 16, 50), (16, 8, 128)],
    ),
    "linear layer": (F.linear, [(2, 25, 768), (512, 768)]),
    "linear layer of 104 channels": (F.linear, [(2, 25, 104), (768, 104)]),
    "linear layer of odd sizes": (F.linear, [(1, 7, 37), (29, 37)]),
    "batched matrix product": (torch.bmm, [(24, 25, 64), (24, 64, 25)]),
    "attention": (F.scaled_dot_product_attention, [(2, 4, 25, 64)] * 3),
}


def bfloat16_errors() -> dict[str, float]:
    """The largest relative error of each operation's output and gradients; infinite if one is not finite."""
    generator = torch.Generator().manual_seed(0)
    errors = {}
    for name, (operation, shapes) in OPERATIONS.items():
        inputs = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
        expected = output_and_gradients(operation, [x.float() for x in inputs])
        found = [output_and_gradients(operation, inputs) for _ in range(REPEATS)]
        errors[name] = max(relative_error(*pair) for one in found for pair in zip(one, expected, strict=True))
    return errors


def output_and_gradients(operation: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of half its squared norm with respect to the inputs."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        output = operation(*inputs)
        gradients = torch.autograd.grad(output, inputs, output.detach())
    return [output.detach(), *gradients]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of ``expected``."""
    error = ((found.float() - expected).norm() / expected.norm()).item()
    return error if math.isfinite(error) else math.inf
