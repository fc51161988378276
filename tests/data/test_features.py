from __future__ import annotations

import numpy as np
import pytest

from av_ssl.data.reading import audio_features, frame_waveform, log_filterbank, normalize_frames, stack_frames

TONE = (10000 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)).astype(np.int16)


def waves() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    long = np.tile(TONE, 3)
    impulse = np.zeros(16000, np.int16)
    impulse[8000] = 30000
    return {
        **{f"{n} samples": long[:n] for n in (1, 300, 400, 401, 16000, 16160, 48000)},
        "silence": np.zeros(16000, np.int16),
        "half silence": np.where(np.arange(16000) < 8000, TONE, 0).astype(np.int16),
        "constant": np.full(16000, 20000, np.int16),
        "impulse": impulse,
        "noise": rng.normal(0, 3000, 16000).astype(np.int16),
        "hardly audible": rng.integers(-1, 2, 16000).astype(np.int16),
    }


@pytest.mark.parametrize("name", waves())
def test_equals_python_speech_features(name: str) -> None:
    speech_features = pytest.importorskip("python_speech_features")
    wave = waves()[name]
    expected = speech_features.logfbank(wave, samplerate=16000)
    features = log_filterbank(wave)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (401, 2), (16000, 99), (16160, 100), (48000, 299)])
def test_number_of_frames(samples: int, frames: int) -> None:
    assert log_filterbank(np.tile(TONE, 3)[:samples]).shape == (frames, 26)


def test_reference_values_of_a_tone() -> None:
    features = log_filterbank(TONE)
    expected = [11.5206, 11.5463, 12.2960, 12.4083, 12.8388, 13.6812, 14.5118, 15.7103]
    np.testing.assert_allclose(features[0, :8], expected, atol=1e-4)
    assert features.sum(dtype=np.float64) == pytest.approx(36043.2314, abs=0.01)
    stacked = audio_features(TONE, None, normalize=True)
    assert stacked.shape == (25, 104)
    np.testing.assert_allclose(
        stacked[0, :6], [-1.1507, -1.1387, -0.7896, -0.7373, -0.5368, -0.1445], atol=1e-4
    )


def test_silence_is_the_logarithm_of_the_smallest_float64() -> None:
    np.testing.assert_allclose(log_filterbank(np.zeros(800, np.int16)), -36.0437, atol=1e-4)


def test_stacking_is_frame_major_and_pads_the_end() -> None:
    stacked = stack_frames(np.arange(15, dtype=np.float32).reshape(5, 3), 4)
    np.testing.assert_array_equal(stacked[0], np.arange(12))
    np.testing.assert_array_equal(stacked[1], [12, 13, 14] + 9 * [0])


def test_audio_follows_the_number_of_video_frames() -> None:
    shorter, longer = audio_features(TONE, 20, True), audio_features(TONE, 30, True)
    whole = audio_features(TONE, None, True)
    np.testing.assert_array_equal(shorter, whole[:20])
    np.testing.assert_array_equal(longer[:25], whole)
    np.testing.assert_array_equal(longer[25:], np.zeros((5, 104)))  # a row of zeros stays zero


def test_normalising_gives_each_frame_mean_zero_and_unit_variance() -> None:
    x = np.random.default_rng(0).normal(5, 3, (7, 104)).astype(np.float32)
    y = normalize_frames(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(1), 1, atol=1e-4)


def test_without_normalising_values_are_kept() -> None:
    np.testing.assert_array_equal(audio_features(TONE, None, False)[0, :26], log_filterbank(TONE)[0])


# -- samples under each video frame --------------------------------------------------------------------------


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
