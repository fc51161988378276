"""MFCC against Kaldi's, as torchaudio computes them."""

import numpy as np
import pytest

from av_ssl.targets.mfcc import MFCC_DIM, mfcc

# torchaudio 2.11.0, of the signal below divided by 32768:
#     static = torchaudio.compliance.kaldi.mfcc(wave, sample_frequency=16000, use_energy=False).T
#     first = torchaudio.functional.compute_deltas(static)
#     second = torchaudio.functional.compute_deltas(first)
#     torch.cat([static, first, second]).T
FRAME_0 = """
 -6.6431 -17.459   13.7978  14.1761  11.2083   2.0171  -1.8093 -10.051  -20.3406
-34.4767 -28.7431 -27.9602 -28.8197  -0.2094  -0.1906  -0.4287  -1.2174  -1.0768
 -3.0935  -6.0796  -5.6456  -5.9476  -5.098   -2.6435   0.5652   5.7952  -0.021
  0.0703  -0.216   -0.8223  -1.2019  -0.9961  -1.3758  -1.0439  -0.1383   1.2657
  1.4004   1.8721   1.5474"""
FRAME_20 = """
 -8.3042 -26.4788 -15.8872 -39.4755 -31.7705 -11.7331  12.3015  32.4452  -0.7156
-44.3816 -45.95   -25.9115  17.873   -0.2769  -0.3129  -2.1685  -0.8354   1.8864
  6.4278   4.293   -4.595   -8.0665  -4.2069   1.9315   5.2729   7.3888   0.0881
  0.244    0.1891   0.2575   0.9522   1.5063   1.72    -0.8168   0.4147   3.8477
  4.1262   2.532   -1.9482"""
SUM, ABSOLUTE_SUM = -5410.6055, 17165.742


@pytest.fixture(scope="module")
def chirp() -> np.ndarray:
    t = np.arange(8000)
    tone = 6000 * np.sin(2 * np.pi * (200 + 0.1 * t) * t / 16000)
    return (tone + np.random.default_rng(0).normal(0, 500, 8000)).astype(np.int16)


def test_equals_torchaudio(chirp):
    features = mfcc(chirp)
    assert features.shape == (48, MFCC_DIM)
    assert features.dtype == np.float32
    for frame, expected in ((0, FRAME_0), (20, FRAME_20)):
        np.testing.assert_allclose(features[frame], np.array(expected.split(), float), atol=2e-4)
    assert features.sum() == pytest.approx(SUM, abs=0.05)
    assert np.abs(features).sum() == pytest.approx(ABSOLUTE_SUM, abs=0.05)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_whole_windows_count(samples, frames):
    assert mfcc(np.ones(samples, np.int16)).shape == (frames, MFCC_DIM)


def test_silence_is_finite_and_does_not_move():
    features = mfcc(np.zeros(3200, np.int16))
    assert np.isfinite(features).all()
    assert np.abs(features[:, 13:]).max() < 1e-4


def test_a_ramp_has_its_slope_as_difference(chirp):
    features = mfcc(chirp)
    static, first = features[:, :13], features[:, 13:26]
    slope = sum(k * (static[10 + k]) for k in (-2, -1, 1, 2)) / 10
    np.testing.assert_allclose(first[10], slope, atol=1e-4)
