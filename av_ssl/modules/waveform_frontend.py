"""Auditory front-end on the raw waveform: a convolution and a 1-D ResNet-18, down to video's 25 Hz.

The architecture and its tensor names are RAVEn's (Haliassos et al., 2023, section 3; encoders of the public
weights).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_ssl.modules.resnet import ResNetTrunk, make_activation, silenced

FULL_SCALE = 32768
POOLED = 20
"""Positions of the last stage that make one video frame."""
FRAME_SAMPLES = 4 * 2**3 * POOLED
"""640: samples of one video frame (16 kHz / 25 Hz); strides are 4 in the stem and 2 in three stages."""


class WaveformTrunk(ResNetTrunk):
    """Stem and four stages: ``[B, 1, 640 * T]`` -> ``[B, 8 * width, 20 * T]``."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__(width, activation, dims=1)
        self.conv1 = nn.Conv1d(1, width, kernel_size=80, stride=4, padding=38, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = make_activation(activation, width)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        x = self.relu(self.bn1(self.conv1(silenced(x, padding_mask))))
        return super().forward(silenced(x, padding_mask), padding_mask)


class WaveformResNet(nn.Module):
    """A waveform at 16 kHz -> one feature vector a video frame (40 ms).

    In training padding is computed like sound, as in the original: behind the first batch norm it is no
    longer zero, so that the last few frames of a clip depend on whether silence follows.  Where batch norms
    use their running statistics it is zeroed before every convolution: a clip's features are those that it
    has alone, as the original decodes.

    Args:
        width: channels of the stem and of the first stage (64 in RAVEn; less for small machines).
        activation: ``swish``, ``relu`` or ``prelu``.
    """

    def __init__(self, width: int = 64, activation: str = "swish") -> None:
        super().__init__()
        self.trunk = WaveformTrunk(width, activation)

    def forward(self, audio: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """``[B, 640 * T]`` -> ``[B, T, 8 * width]``; samples beyond the last whole frame are left out.

        Args:
            audio: ``int16`` samples, or floats on the scale -1..1.
            padding_mask: bool ``[B, T]``, True on padding; of no effect in training.

        Raises:
            ValueError: there is not one whole frame.
        """
        frames = audio.size(-1) // FRAME_SAMPLES
        if not frames:
            raise ValueError(
                f"a waveform of {audio.size(-1)} samples is shorter than one video frame "
                f"({FRAME_SAMPLES} samples at 16 kHz)"
            )
        x = audio[:, : frames * FRAME_SAMPLES]
        if self.trunk.bn1.training:
            padding_mask = None
        x = self.trunk(scaled(x, self.trunk.conv1.weight.dtype)[:, None], padding_mask)
        return F.avg_pool1d(x, POOLED).transpose(1, 2)


def scaled(audio: Tensor, dtype: torch.dtype) -> Tensor:
    """Samples on the scale -1..1: ``int16`` is divided by 32768, floats are so already."""
    if audio.dtype == torch.int16:
        return audio.to(torch.float32).div_(FULL_SCALE).to(dtype)
    return audio.to(dtype)
