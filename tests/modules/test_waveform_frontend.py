"""The auditory front-end on raw waveforms."""

import numpy as np
import pytest
import torch

from av_ssl.modules.frontends import WaveformResNet
from av_ssl.modules.masked_frames import mask_waveform


def frontend() -> WaveformResNet:
    torch.manual_seed(0)
    return WaveformResNet(width=4).eval()


@pytest.mark.parametrize(("samples", "frames"), [(640, 1), (16000, 25), (16300, 25)])
def test_one_vector_a_video_frame(samples, frames):
    with torch.no_grad():
        assert frontend()(torch.randn(2, samples) * 0.1).shape == (2, frames, 32)


def test_samples_beyond_the_last_frame_have_no_effect():
    net, audio = frontend(), torch.randn(1, 1919)
    with torch.no_grad():
        assert torch.equal(net(audio), net(audio[:, :1280]))


def test_too_short():
    with pytest.raises(ValueError, match="639 samples is shorter than one video frame"):
        frontend()(torch.zeros(1, 639))


def test_integers_are_scaled():
    audio = torch.randint(-32768, 32768, (1, 1280), dtype=torch.int16)
    net = frontend()
    with torch.no_grad():
        np.testing.assert_allclose(net(audio), net(audio.double() / 32768), atol=1e-6)


def test_known_padding_changes_nothing():
    """Not even the last frame, and whatever the samples are."""
    audio, net = torch.randn(1, 12 * 640), frontend()
    randomise_statistics(net)
    longer = torch.cat([audio, torch.randn(1, 8 * 640)], dim=1)
    padding = torch.arange(20)[None] >= 12
    with torch.no_grad():
        np.testing.assert_allclose(net(longer, padding)[:, :12], net(audio), atol=1e-6)
        net.train()  # where padding is computed like sound
        assert torch.equal(net(longer, padding), net(longer))


def randomise_statistics(net: torch.nn.Module) -> None:
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_masked_frames_are_silent(dtype):
    audio = torch.arange(1, 2 * 1920 + 1).view(2, 1920).to(dtype)
    mask = torch.tensor([[False, True, False], [True, False, True]])
    silent = mask_waveform(audio, mask)
    assert silent.dtype == dtype
    hidden = mask.repeat_interleave(640, dim=1)
    assert torch.equal(silent == 0, hidden)
    assert torch.equal(silent[~hidden], audio[~hidden])


def test_padding_reaches_back_a_few_frames_only():
    """The receptive field of the last stage is 9.3 frames wide: 4.6 frames on either side."""
    audio, net = torch.randn(1, 12 * 640), frontend()
    longer = torch.nn.functional.pad(audio, (0, 8 * 640))
    with torch.no_grad():
        alone, padded = net(audio), net(longer)
    np.testing.assert_allclose(padded[:, :7], alone[:, :7], atol=1e-6)
    assert not torch.allclose(padded[:, 11], alone[:, 11], atol=1e-6)
