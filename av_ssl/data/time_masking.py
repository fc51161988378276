"""Time masking: while a recogniser is trained, short stretches of a clip are silent or grey.

As in SpecAugment (Park et al., 2019), but longer clips have more masks.  RAVEn fine-tunes so (Haliassos et
al., 2023): audio with masks of up to 0.6 s every 2 s, video of up to 0.4 s every 1 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from av_ssl.data.spans import BoolArray


@dataclass(frozen=True)
class TimeMask:
    """Masks of one stream: one for every `stride` seconds begun, each shorter than `longest` seconds.

    Raises ValueError when either is not above 0.
    """

    longest: float
    stride: float

    def __post_init__(self) -> None:
        if self.longest <= 0 or self.stride <= 0:
            raise ValueError(
                f"a time mask of up to {self.longest} s in every {self.stride} s: both must be above 0; "
                "0 for the first turns it off (time_mask_audio, time_mask_video)"
            )

    def draw(self, length: int, rate: int, rng: np.random.Generator) -> BoolArray:
        """Mask bool `[length]` of a stream of `rate` frames or samples a second, True where masked.

        With W = longest * rate, `ceil(length / (stride * rate))` masks have lengths uniform in 0..W-1 and
        starts uniform among those at which they end within the clip; one that would cover a whole short clip
        is left out [ours].
        """
        count = -(-length // max(1, round(self.stride * rate)))
        lengths = rng.integers(0, max(1, round(self.longest * rate)), count)
        lengths = lengths[lengths < length]
        starts = rng.integers(0, length - lengths + 1)
        mask = np.zeros(length, bool)
        for start, end in zip(starts, starts + lengths, strict=True):
            mask[start:end] = True
        return mask
