"""What stands in place of masked frames. Data workers draw the masks (``av_ssl.data.masking``)."""

import torch
from torch import Tensor


def replace_frames(x: Tensor, mask: Tensor, embedding: Tensor) -> Tensor:
    """Put a learned vector ``[C]`` in place of masked frames of ``x [B, T, C]``; ``mask`` bool ``[B, T]``."""
    return torch.where(mask[..., None], embedding.to(x.dtype), x)


def take_frames(video: Tensor, source_frame: Tensor) -> Tensor:
    """Put frames from elsewhere in the batch in place of masked ones of ``video [B, 1, T, H, W]``.

    ``source_frame [B, T]`` is the flat index b*T+t of the frame to take (its own where unmasked).
    """
    batch, _, frames, height, width = video.shape
    flat = video.reshape(batch * frames, height, width)
    return flat[source_frame.flatten()].view(batch, 1, frames, height, width)


def gray_frames(video: Tensor, mask: Tensor, mean: float) -> Tensor:
    """Give masked frames the mean gray value, 0..1, which is zero after normalising.

    ``video [B, 1, T, H, W]`` is ``uint8``, or floats that are normalised already; ``mask`` bool ``[B, T]``.
    """
    gray = round(255 * mean) if video.dtype == torch.uint8 else 0
    return video.masked_fill(mask[:, None, :, None, None], gray)


def mask_waveform(audio: Tensor, mask: Tensor) -> Tensor:
    """Make masked frames silent: ``audio [B, N]``, N a multiple of T (640 T); ``mask`` bool ``[B, T]``."""
    frames = audio.unflatten(1, (mask.size(1), -1))
    return frames.masked_fill(mask[..., None], 0).flatten(1)
