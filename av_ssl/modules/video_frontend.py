"""Visual front-end: a spatio-temporal convolution, a ResNet-18 a frame, and a linear projection.

The architecture and its tensor names are AV-HuBERT's (Shi et al., 2022, section 3 and appendix A), so weights
move freely.  Only the order of the work differs: frames that are padding are left out before the first
convolution, which saves their cost and keeps batch-norm statistics independent of the padding.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_FRAMES = 5


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016); the activations are per-channel PReLUs."""

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = make_activation(activation, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = make_activation(activation, channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


class ResNetTrunk(nn.Module):
    """ResNet-18 without its stem: maps of ``width`` channels in, a vector of ``8 * width`` a frame out."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        channels_in = width
        for stage in range(4):
            channels = width << stage
            blocks = [
                ResidualBlock(channels_in, channels, 1 if stage == 0 else 2, activation),
                ResidualBlock(channels, channels, 1, activation),
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels_in = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """``[F, width, H, W]`` -> ``[F, 8 * width]``."""
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))


class VisualResNet(nn.Module):
    """Spatio-temporal stem and ResNet-18 trunk, computed for the frames that are asked for.

    Args:
        width: channels of the stem and of the first stage (64 in AV-HuBERT; less for small machines).
        activation: ``prelu`` or ``relu``.
    """

    def __init__(self, width: int = 64, activation: str = "prelu") -> None:
        super().__init__()
        # The layers keep the classes' parameter names and shapes; the 3-D convolution runs as a 2-D one over
        # 5 frames.
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, width, (KERNEL_FRAMES, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm2d(width),
            make_activation(activation, width),
            nn.MaxPool2d(3, 2, 1),
        )
        self.trunk = ResNetTrunk(width, activation)

    def forward(self, video: Tensor, frame_index: Tensor, padding_mask: Tensor | None) -> Tensor:
        """``video [B, T, H, W]`` (normalised), flat ``frame_index [F]`` (b*T+t) -> ``[F, 8 * width]``."""
        conv, *rest = self.frontend3D
        # conv is a Conv3d(1, width): its kernel over 5 frames of 1 channel is a 2-D kernel over 5 channels.
        weight = cast(Tensor, conv.weight).squeeze(1).contiguous(memory_format=torch.channels_last)
        x = temporal_context(video, frame_index, padding_mask)
        x = F.conv2d(x, weight, stride=2, padding=3)
        for layer in rest:
            x = layer(x)
        return self.trunk(x)


class VideoFrontend(nn.Module):
    """Grey mouth crops at 25 Hz -> one feature vector a frame.

    ``encoder``, ``[B, T, C]`` -> ``[B, T, C]``, comes behind the projection if it is set.

    Args:
        output_dim: channels C of the features.
        width, activation: see :class:`VisualResNet`.
        mean, std: of the grey values on the scale 0..1, applied to ``uint8`` input on its device.
    """

    def __init__(
        self,
        output_dim: int,
        width: int = 64,
        activation: str = "prelu",
        mean: float = 0.421,
        std: float = 0.165,
    ) -> None:
        super().__init__()
        self.resnet = VisualResNet(width, activation)
        self.proj = nn.Linear(8 * width, output_dim)
        self.mean, self.std = mean, std
        self.encoder: nn.Module | None = None

    def forward(
        self, video: Tensor, padding_mask: Tensor | None = None, frame_index: Tensor | None = None
    ) -> Tensor:
        """Compute the features of the real frames; those of padding are zero.

        Args:
            video: ``[B, 1, T, H, W]``, ``uint8`` grey values, or floats that are normalised already.
            padding_mask: bool ``[B, T]``, True on padding; None if there is none.
            frame_index: int64 ``[F]``, flat indices b*T+t of the real frames. Given by the data pipeline so
                that no device has to be waited for; found from ``padding_mask`` where absent.

        Returns:
            ``[B, T, C]``.
        """
        batch, _, frames = video.shape[:3]
        if frame_index is None:
            frame_index = real_frames(padding_mask, batch, frames, video.device)
        x = self.normalize(video).squeeze(1)
        x = self.proj(self.resnet(x, frame_index, padding_mask))
        x = x.new_zeros(batch * frames, x.size(-1)).index_copy(0, frame_index, x).view(batch, frames, -1)
        return x if self.encoder is None else self.encoder(x)

    def normalize(self, video: Tensor) -> Tensor:
        dtype = self.proj.weight.dtype
        if video.dtype != torch.uint8:
            return video.to(dtype)
        return video.float().sub_(255 * self.mean).div_(255 * self.std).to(dtype)


def make_activation(name: str, channels: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(channels)
    if name == "relu":
        return nn.ReLU()
    raise ValueError(f"resnet_relu_type is {name!r}; it must be prelu or relu")


def real_frames(padding_mask: Tensor | None, batch: int, frames: int, device: torch.device) -> Tensor:
    """Flat indices b*T+t of frames that are not padding, int64 ``[F]``."""
    if padding_mask is None:
        return torch.arange(batch * frames, device=device)
    return (~padding_mask).flatten().nonzero().squeeze(1)


def temporal_context(video: Tensor, frame_index: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Stack each frame with its two neighbours on either side, zeros beyond the clip.

    ``video [B, T, H, W]``, ``frame_index [F]`` -> ``[F, 5, H, W]`` in channels-last layout.
    """
    batch, frames, height, width = video.shape
    offsets = torch.arange(KERNEL_FRAMES, device=video.device) - KERNEL_FRAMES // 2
    time = (frame_index % frames)[:, None] + offsets
    neighbours = frame_index[:, None] + offsets
    inside = (time >= 0) & (time < frames)
    neighbours = torch.where(inside, neighbours, 0)
    if padding_mask is not None:
        inside &= ~padding_mask.flatten()[neighbours]
    stacked = video.reshape(batch * frames, height * width)[neighbours]
    stacked = stacked * inside[..., None]
    stacked = stacked.view(-1, KERNEL_FRAMES, height, width)
    return stacked.contiguous(memory_format=torch.channels_last)
