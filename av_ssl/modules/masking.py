"""What takes the place of masked frames. Which they are is drawn by the data pipeline (``av_ssl.data``)."""

from __future__ import annotations

import torch
from torch import Tensor


def replace_frames(x: Tensor, mask: Tensor, embedding: Tensor) -> Tensor:
    """Put a learned vector in place of masked frames.

    Args:
        x: ``[B, T, C]``.
        mask: bool ``[B, T]``, True where masked.
        embedding: ``[C]``.
    """
    return torch.where(mask[..., None], embedding.to(x.dtype), x)


def take_frames(video: Tensor, source_frame: Tensor) -> Tensor:
    """Put frames from elsewhere in the same clip in place of masked ones.

    Args:
        video: ``[B, 1, T, H, W]``.
        source_frame: int64 ``[B, T]``, for each frame the frame of its clip to take (itself where unmasked).
    """
    batch, _, frames, height, width = video.shape
    rows = source_frame + torch.arange(batch, device=video.device)[:, None] * frames
    flat = video.reshape(batch * frames, height, width)
    return flat[rows.flatten()].view(batch, 1, frames, height, width)
