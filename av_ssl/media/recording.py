"""A recording as parts that a recogniser can take: mouth crops, sound or both, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """A stretch of a recording for one call of a recogniser.

    Args:
        start: seconds from the start of the recording.
        frames: mouth crops ``[T, 96, 96]`` at 25 Hz, grayscale; None: no usable face.
        samples: sound ``[N]`` at 16 kHz, mono, ``N == 640 * T`` where there are frames; None: no sound.
        face: number of the face, from 1; None where it does not matter.
    """

    start: float
    frames: NDArray[np.uint8] | None
    samples: NDArray[np.int16] | None
    face: int | None = None
