"""Cropping and flipping pictures, by slicing: frames stay uint8 and are copied once, into the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import MediaError


class Crop(NamedTuple):
    """Upper left corner in pixels, and whether left and right are swapped; holds for all frames of a clip."""

    top: int
    left: int
    flip: bool


@dataclass(frozen=True)
class CropAndFlip:
    """Cuts squares of `size` pixels: centred, or if `random` anywhere, flipped with `flip_probability`."""

    size: int = 88
    random: bool = False
    flip_probability: float = 0.5

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Crop:
        """Where to cut; raises MediaError when the picture is smaller than the crop."""
        free_rows, free_columns = height - self.size, width - self.size
        if min(free_rows, free_columns) < 0:
            raise MediaError(
                f"pictures of {width}x{height} pixels are smaller than the crop of {self.size}; "
                "crop the mouth again at 96x96, or lower task.image_crop_size"
            )
        if not self.random:
            return Crop(round(free_rows / 2), round(free_columns / 2), False)
        top, left = rng.integers(0, [free_rows + 1, free_columns + 1])
        return Crop(int(top), int(left), bool(rng.random() < self.flip_probability))

    def apply(self, video: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
        """A view `[T, size, size]` of `video` `[T, H, W]`; flipped views have a negative stride."""
        view = video[:, crop.top : crop.top + self.size, crop.left : crop.left + self.size]
        return view[:, :, ::-1] if crop.flip else view
