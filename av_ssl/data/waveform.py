"""Raw audio as input: the samples under each video frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.reading import SAMPLES_PER_FRAME


def frame_waveform(wave: NDArray[np.int16], frames: int | None) -> NDArray[np.int16]:
    """Samples `[T, 640]` int16 at 25 Hz, neither scaled nor normalised (RAVEn, Haliassos et al., 2023).

    Args:
        wave: int16 `[N]` at 16 kHz.
        frames: T, the number of decoded video frames: silence is appended or samples dropped at the end; None
            keeps the whole frames that the audio gives, floor(N / 640).
    """
    if frames is None:
        frames = len(wave) // SAMPLES_PER_FRAME
    wanted = frames * SAMPLES_PER_FRAME
    if len(wave) < wanted:
        wave = np.pad(wave, (0, wanted - len(wave)))
    return wave[:wanted].reshape(frames, SAMPLES_PER_FRAME)
