"""Log mel energies of waveforms, computed on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 16000
WINDOW = 400
"""25 ms in samples."""
HOP = 160
"""10 ms in samples."""
FFT_SIZE = 512
ENERGY_FLOOR = 1e-6
"""Of samples on the scale -1..1; about -120 dB of full scale."""
INT16_SCALE = 1 / 32768


class LogMel(nn.Module):
    """Waveform -> log mel energies at 100 Hz, four frames for each 40 ms (640 samples).

    Frame k lies around sample 160 k + 80: none looks beyond the clip by more than half a window, where there
    is silence.

    Args:
        bands: mel bands between 20 and 7600 Hz.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int = 80) -> None:
        super().__init__()
        # Not in checkpoints: they follow from the settings.
        self.register_buffer("filters", mel_filters(bands), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """``[B, 640 T]`` int16, or float on the scale -1..1 -> float32 ``[B, bands, 4 T]``."""
        x = wave.float() * INT16_SCALE if wave.dtype == torch.int16 else wave.float()
        around = (WINDOW - HOP) // 2
        frames = F.pad(x, (around, around)).unfold(-1, WINDOW, HOP) * self.window.float()
        power = torch.fft.rfft(frames, FFT_SIZE).abs().square()
        return (power @ self.filters.float()).clamp(min=ENERGY_FLOOR).log().transpose(1, 2)


def mel_filters(bands: int, lowest: float = 20.0, highest: float = 7600.0) -> Tensor:
    """Triangular filters float32 ``[257, bands]``, equally wide in mel."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = 700 * (
        10 ** (torch.linspace(mel(lowest), mel(highest), bands + 2, dtype=torch.float64) / 2595) - 1
    )
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1, dtype=torch.float64)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()
