from __future__ import annotations

import numpy as np
import pytest

from av_ssl.data.clip_reader import Crop, CropAndFlip
from av_ssl.errors import MediaError


def test_evaluation_takes_the_centre() -> None:
    assert CropAndFlip(88).draw(96, 96, np.random.default_rng(0)) == Crop(4, 4, False)
    assert CropAndFlip(88).draw(88, 100, np.random.default_rng(0)) == Crop(0, 6, False)


def test_training_reaches_every_place_and_flips_half_the_time() -> None:
    rng = np.random.default_rng(0)
    crops = [CropAndFlip(88, random=True).draw(96, 96, rng) for _ in range(1000)]
    assert {crop.top for crop in crops} == {crop.left for crop in crops} == set(range(9))
    assert sum(crop.flip for crop in crops) == pytest.approx(500, abs=60)
    assert not any(CropAndFlip(88, True, flip_probability=0).draw(96, 96, rng).flip for _ in range(50))


def test_apply_slices_without_copying() -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 10, 12), np.uint8)
    crop = CropAndFlip(4)
    view = crop.apply(video, Crop(2, 5, False))
    np.testing.assert_array_equal(view, video[:, 2:6, 5:9])
    assert np.shares_memory(view, video)
    np.testing.assert_array_equal(crop.apply(video, Crop(2, 5, True)), video[:, 2:6, 8:4:-1])


def test_small_pictures_are_refused() -> None:
    with pytest.raises(MediaError, match="64x96 pixels are smaller than the crop of 88"):
        CropAndFlip(88).draw(96, 64, np.random.default_rng(0))
