"""ResNet-18 (He et al., 2016) over pictures or waveforms; its tensors have torchvision's names."""

from __future__ import annotations

import math

from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class ResidualBlock(nn.Module):
    """Two convolutions of size 3 with a shortcut, each with an activation of its own behind it.

    Args:
        dims: 1 for waveforms, 2 for pictures.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str, dims: int = 2) -> None:
        super().__init__()
        conv, norm = CONVOLUTIONS[dims], BATCH_NORMS[dims]
        self.conv1 = conv(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.relu1 = make_activation(activation, channels)
        self.conv2 = conv(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.relu2 = make_activation(activation, channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                conv(channels_in, channels, 1, stride, bias=False), norm(channels)
            )

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = silenced(self.relu1(self.bn1(self.conv1(x))), padding_mask)
        return silenced(self.relu2(self.bn2(self.conv2(x)) + shortcut), padding_mask)


class ResNetTrunk(nn.Module):
    """ResNet-18 without stem and pooling: ``[N, width, ...]`` -> ``[N, 8 * width, .../8]``.

    Args:
        width: channels of the first stage; each of the three others has twice as many as the one before.
        activation: ``prelu``, ``relu`` or ``swish``.
        dims: 1 for waveforms, 2 for pictures.
    """

    def __init__(self, width: int, activation: str, dims: int = 2) -> None:
        super().__init__()
        channels_in = width
        for stage in range(4):
            channels = width << stage
            blocks = [
                ResidualBlock(channels_in, channels, 1 if stage == 0 else 2, activation, dims),
                ResidualBlock(channels, channels, 1, activation, dims),
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels_in = channels

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Run the stages; ``padding_mask`` is for waveforms, see :func:`silenced`."""
        for stage in range(1, 5):
            for block in getattr(self, f"layer{stage}"):
                x = block(x, padding_mask)
        return x


def silenced(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Zero what lies in padded frames of ``x [B, C, T * k]``: ``padding_mask`` bool ``[B, T]``; None: none.

    What a convolution then sees behind the end of a clip is what it sees behind the end of a batch.
    """
    if padding_mask is None:
        return x
    by_frame = x.unflatten(-1, (padding_mask.size(1), -1))
    return by_frame.masked_fill(padding_mask[:, None, :, None], 0).flatten(-2)


def init_he(trunk: nn.Module) -> None:
    """Draw all 2-D kernels as He et al. (2015) do, by their fan-out; without it they are PyTorch's."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))


def make_activation(name: str, channels: int) -> nn.Module:
    """``prelu`` (a slope a channel), ``relu``, or ``swish`` (x * sigmoid(x))."""
    if name == "prelu":
        return nn.PReLU(channels)
    if name == "relu":
        return nn.ReLU()
    if name == "swish":
        return nn.SiLU()
    raise ValueError(f"resnet_relu_type is {name!r}; it must be prelu, relu or swish")
