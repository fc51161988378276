from __future__ import annotations

import numpy as np
import pytest

from av_ssl.data.reading import frame_waveform


def wave(samples: int) -> np.ndarray:
    return np.arange(1, samples + 1, dtype=np.int16)


@pytest.mark.parametrize(("samples", "frames"), [(640, 1), (16_000, 25), (16_300, 25), (639, 0)])
def test_audio_alone_gives_its_whole_frames(samples: int, frames: int) -> None:
    framed = frame_waveform(wave(samples), None)
    assert (framed.shape, framed.dtype) == ((frames, 640), np.int16)
    np.testing.assert_array_equal(framed.ravel(), wave(samples)[: frames * 640])


@pytest.mark.parametrize("samples", [1, 1900, 1920, 5000])
def test_as_long_as_the_video(samples: int) -> None:
    framed = frame_waveform(wave(samples), 3)
    assert (framed.shape, framed.dtype) == ((3, 640), np.int16)
    heard = min(samples, 1920)
    np.testing.assert_array_equal(framed.ravel()[:heard], wave(samples)[:heard])
    assert not framed.ravel()[heard:].any()
