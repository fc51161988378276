"""Log mel energies and the thin ResNet over them."""

import math

import numpy as np
import pytest
import torch

from av_ssl.data.reading import log_filterbank, stack_frames
from av_ssl.modules.spectrogram_frontend import LogMel, MaskedBatchNorm, RowBatchNorm, SpectrogramResNet

LENGTHS = torch.tensor([6, 4])
PADDING = torch.arange(6) >= LENGTHS[:, None]


def tone(hertz, samples=640 * 8):
    return (8000 * torch.sin(2 * math.pi * hertz * torch.arange(samples) / 16000)).to(torch.int16)[None]


def test_mel_bands_follow_the_pitch_and_the_level():
    mel = LogMel(40)
    low, high = mel(tone(300)), mel(tone(3000))
    assert low.shape == (1, 40, 32)
    assert low[0, :, 10].argmax() < high[0, :, 10].argmax()
    louder = mel(tone(300).float() / 32768 * 2)
    peak = low[0, :, 10].argmax()
    assert (louder - low)[0, peak, 10].item() == pytest.approx(math.log(4), abs=1e-3)
    assert mel(torch.zeros(1, 640)).isfinite().all()


def test_filterbanks_are_unstacked_in_order():
    wave = np.random.default_rng(0).normal(0, 1000, 640 * 5).astype(np.int16)
    bank = log_filterbank(wave)
    stacked = torch.from_numpy(stack_frames(bank)).T[None]
    front_end = SpectrogramResNet(8, 26, width=4, blocks=(1, 1, 1, 1))
    unstacked = front_end.spectrogram(stacked)[0].T.numpy()
    np.testing.assert_array_equal(unstacked[: len(bank)], bank)
    with pytest.raises(ValueError, match="80 channels"):
        front_end.spectrogram(torch.zeros(1, 80, 5))


@pytest.mark.parametrize("kind", ["filterbank", "waveform"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(kind, training):
    torch.manual_seed(0)
    front_end = SpectrogramResNet(8, 26, width=4, blocks=(1, 2, 1, 1)).train(training)
    if kind == "filterbank":
        audio = torch.randn(2, 104, 6) * ~PADDING[:, None]
        more, cut = torch.nn.functional.pad(audio, (0, 3)), audio[1:, :, :4]
    else:
        audio = (3000 * torch.randn(2, 640 * 6)).to(torch.int16) * (~PADDING).repeat_interleave(640, -1)
        more, cut = torch.nn.functional.pad(audio, (0, 3 * 640)), audio[1:, : 4 * 640]
    features = front_end(audio, PADDING)
    assert features.shape == (2, 6, 8)
    longer = front_end(more, torch.nn.functional.pad(PADDING, (0, 3), value=True))
    torch.testing.assert_close(longer[:, :6], features, atol=2e-5, rtol=1e-4)
    if not training:
        alone = front_end(cut, PADDING[1:, :4])
        torch.testing.assert_close(alone, features[1:, :4], atol=2e-5, rtol=1e-4)


def test_masked_norm_is_batch_norm_where_nothing_is_masked():
    torch.manual_seed(0)
    masked, plain = MaskedBatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(2, 3, 4, 5) * 3 + 1
    keep = torch.ones(2, 1, 1, 5)
    torch.testing.assert_close(masked(x, keep), plain(x))
    torch.testing.assert_close(masked.running_var, plain.running_var)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    masked.eval()
    torch.testing.assert_close(masked(x, keep), plain.eval()(x))


def test_masked_norm_counts_in_half_precision():
    """A sum of 300 ones is 300, not 256, however coarse the numbers."""
    norm = MaskedBatchNorm(2)
    keep = torch.ones(1, 1, 1, 301)
    keep[..., -1] = 0
    x = (torch.ones(1, 2, 1, 301) * keep).bfloat16()
    norm.momentum = 1.0
    norm(x, keep.bfloat16())
    torch.testing.assert_close(norm.running_mean, torch.ones(2))


def test_a_single_row_has_no_batch_statistics():
    norm = RowBatchNorm(4)
    x = torch.randn(1, 4)
    torch.testing.assert_close(norm(x), x, atol=1e-4, rtol=1e-4)
    assert norm.num_batches_tracked == 0


def test_wrong_number_of_stages():
    with pytest.raises(ValueError, match="four stages"):
        SpectrogramResNet(8, 26, blocks=(1, 1))
