"""Whisper's log-mel spectrogram, on any device (Radford et al., 2022, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-10
RANGE = 8.0
"""Decades below a clip's loudest bin at which quieter ones are cut off."""


def log_mel(wave: Tensor, filters: Tensor, fft_size: int, hop: int) -> Tensor:
    """Spectrogram ``[B, M, N // hop]`` of samples float32 ``[B, N]`` on the scale of +-1.

    Args:
        filters: float32 ``[fft_size // 2 + 1, M]``.
        fft_size: samples of a window.
        hop: samples between windows.
    """
    window = torch.hann_window(fft_size, device=wave.device)
    spectrum = torch.stft(wave, fft_size, hop, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    log_spectrum = (filters.T @ power).clamp(min=FLOOR).log10()
    loudest = log_spectrum.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_spectrum, loudest - RANGE) + 4.0) / 4.0
