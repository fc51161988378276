"""Visual front-end: a spatio-temporal convolution, a ResNet-18 a frame, and a linear projection.

The architecture and its tensor names are AV-HuBERT's (Shi et al., 2022, section 3 and appendix A) and, with
Swish, RAVEn's (Haliassos et al., 2023), so weights move freely.  Only the order of the work differs: frames
that are padding are left out before the first convolution, which saves their cost and keeps batch-norm
statistics independent of the padding.  The originals compute padding too, so in training their statistics
are those of real and padded frames together.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.modules.resnet import ResNetTrunk, init_he, make_activation

KERNEL_FRAMES = 5


class VisualResNet(nn.Module):
    """Spatio-temporal stem and ResNet-18 trunk, computed for the frames that are asked for.

    Its weights are PyTorch's initial ones; callers draw others (:func:`~av_ssl.modules.resnet.init_he`).

    Args:
        width: channels of the stem and of the first stage (64 in AV-HuBERT; less for small machines).
        activation: ``prelu``, ``relu`` or ``swish``.
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
        return self.trunk(x).mean(dim=(2, 3))


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
        init_he(self.resnet.trunk)
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
        x = normalized(video, self.mean, self.std, self.proj.weight.dtype).squeeze(1)
        x = self.proj(self.resnet(x, frame_index, padding_mask))
        x = unpacked(x, frame_index, batch, frames)
        return x if self.encoder is None else self.encoder(x)


def normalized(video: Tensor, mean: float, std: float, dtype: torch.dtype) -> Tensor:
    """Grey values (``uint8``) with ``mean`` and ``std`` on the scale 0..1 taken out; floats have it done."""
    if video.dtype != torch.uint8:
        return video.to(dtype)
    return video.float().sub_(255 * mean).div_(255 * std).to(dtype)


def unpacked(x: Tensor, frame_index: Tensor, batch: int, frames: int) -> Tensor:
    """Features of the real frames ``[F, C]`` in their places, zeros elsewhere: ``[B, T, C]``."""
    return x.new_zeros(batch * frames, x.size(-1)).index_copy(0, frame_index, x).view(batch, frames, -1)


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
