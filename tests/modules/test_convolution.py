"""Convolutions in bfloat16 on a CPU against float32, and where float32 is used."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import av_ssl
from av_ssl.modules.convolution import Conv1d, Conv2d, convolve, right_convolutions
from av_ssl.modules.frontends import VideoFrontend, WaveformResNet
from av_ssl.modules.spectrogram_frontend import SpectrogramResNet
from av_ssl.modules.transformer import PositionalConvolution
from tests.modules.recorder import Recorder

CPU = torch.device("cpu")
CASES = {
    # name: input, weight, stride, padding, groups, dtype in which it is computed
    "positional, 2 groups of 8": ((2, 16, 50), (16, 8, 128), 1, 64, 2, torch.float32),
    "positional, 4 groups of 12": ((2, 48, 50), (48, 12, 128), 1, 64, 4, torch.float32),
    "positional, 16 groups of 2": ((2, 32, 50), (32, 2, 128), 1, 64, 16, torch.float32),
    "positional, one group of 14": ((2, 14, 20), (14, 14, 16), 1, 8, 1, torch.float32),
    "positional, Base": ((1, 768, 20), (768, 48, 128), 1, 64, 16, torch.bfloat16),
    "8 x 8": ((3, 8, 12, 12), (18, 8, 8, 8), 2, 4, 1, torch.float32),
    "over three axes": ((2, 4, 5, 8, 8), (4, 4, 3, 3, 3), 1, 1, 1, torch.float32),
    "stem over 5 frames": ((3, 5, 24, 24), (16, 5, 7, 7), 2, 3, 1, torch.bfloat16),
    "3 x 3": ((3, 64, 11, 11), (128, 64, 3, 3), 2, 1, 1, torch.bfloat16),
    "1 x 1, stride 2": ((3, 64, 11, 11), (128, 64, 1, 1), 2, 0, 1, torch.bfloat16),
    "map of one pixel": ((20, 8, 1, 1), (16, 8, 3, 3), 2, 1, 1, torch.float32),
    "to a map of one pixel": ((20, 64, 2, 2), (16, 64, 3, 3), 2, 1, 1, torch.float32),
    "to one column": ((3, 16, 5, 2), (48, 4, 2, 3), (1, 4), 1, 4, torch.float32),
    "to one position": ((2, 64, 2), (16, 64, 3), 3, 1, 1, torch.float32),
    "to one row": ((3, 64, 2, 6), (16, 64, 3, 3), (4, 2), 1, 1, torch.bfloat16),
    "to two positions": ((2, 64, 4), (16, 64, 3), 2, 1, 1, torch.bfloat16),
    "1 x 1, stride 2, to one pixel": ((20, 8, 1, 1), (16, 8, 1, 1), 2, 0, 1, torch.float32),
    "waveform": ((2, 1, 640), (16, 1, 80), 4, 38, 1, torch.float32),
}


def operation(weight: torch.Tensor):
    return (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]


def drawn(name: str):
    shape, kernel, stride, padding, groups, dtype = CASES[name]
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(kernel) / torch.tensor(kernel[1:]).prod().sqrt()
    bias = torch.randn(kernel[0])
    tensors = [tensor.bfloat16() for tensor in (x, weight, bias)]
    return tensors, (stride, padding, 1, groups), dtype


def results(compute, tensors, options):
    """Output and gradients in float32, of inputs that are rounded to bfloat16 already."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    out = compute(*tensors, *options)
    to_come = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return [out, *torch.autograd.grad(out, tensors, to_come.to(out.dtype))]


def assert_close(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        error = (one.float() - other).norm() / other.norm()
        assert error < 0.01


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_close_to_float32(name, autocast):
    tensors, options, dtype = drawn(name)
    conv, wide = operation(tensors[1]), [tensor.float() for tensor in tensors]
    expected = results(conv, wide, options)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), Recorder() as recorder:
        found = results(lambda *args: convolve(conv, *args), wide if autocast else tensors, options)
    assert recorder.dtypes == {dtype}
    if not autocast:
        assert {one.dtype for one in found} == {torch.bfloat16}
        assert len(recorder.seen) == 2  # forward and backward
    assert_close(found, expected)


def test_weight_gradients_are_the_same_in_every_run():
    tensors, options, _ = drawn("map of one pixel")
    runs = []
    for _ in range(20):
        rubbish = [torch.full((n,), value) for n in (500, 2000, 9000, 40000) for value in (torch.nan, 1e30)]
        del rubbish  # memory that the next operations may be given
        runs.append(results(lambda *args: convolve(F.conv2d, *args), tensors, options))
    _, _, first, _ = runs[0]
    assert first[:, :, 0].abs().max() == 0  # this row of the kernel lies on padding
    for _, _, weight, _ in runs[1:]:
        assert torch.equal(weight, first)


def test_float64_stays_float64():
    tensors, options, _ = drawn("positional, 2 groups of 8")
    found = results(lambda *args: convolve(F.conv1d, *args), [tensor.double() for tensor in tensors], options)
    assert {one.dtype for one in found} == {torch.float64}


def test_modules_compute_what_torchs_do():
    torch.manual_seed(0)
    for own, torchs, shape in (
        (Conv1d(6, 4, 9, 2, 4, groups=2), nn.Conv1d(6, 4, 9, 2, 4, groups=2), (2, 6, 30)),
        (
            Conv2d(3, 4, (3, 9), (1, 2), 1, bias=False),
            nn.Conv2d(3, 4, (3, 9), (1, 2), 1, bias=False),
            (2, 3, 9, 12),
        ),
    ):
        own.load_state_dict(torchs.state_dict())
        x = torch.randn(shape)
        assert torch.equal(own(x), torchs(x))


@pytest.mark.parametrize("padding", [8, "same"])
def test_models_of_other_packages(padding):
    torch.manual_seed(0)
    net = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 17, padding=padding, groups=2), dim=2)
    x = torch.randn(2, 16, 40).bfloat16()
    net.bfloat16()
    with Recorder() as recorder, right_convolutions(CPU):
        found = net(x)
    assert recorder.dtypes == {torch.float32}
    assert found.dtype == torch.bfloat16
    assert_close([found], [net.float()(x.float())])
    with Recorder() as recorder:
        net(x.float())
        net.double()(x.double())
    assert recorder.dtypes == {torch.float32, torch.float64}


MODULES = {
    "positional convolution": (PositionalConvolution, (16, 128, 2), [(2, 6, 16)], torch.float32),
    "video": (VideoFrontend, (8, 4), [(2, 1, 6, 88, 88)], torch.bfloat16),
    "waveform": (WaveformResNet, (4,), [(2, 6 * 640)], torch.float32),
    "spectrogram": (SpectrogramResNet, (8, 26, 4, (1, 1, 1, 1)), [(2, 104, 6), (2, 6)], torch.bfloat16),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_this_package_are_close_to_float32(name):
    cls, options, shapes, first = MODULES[name]
    torch.manual_seed(0)
    net, x = cls(*options), torch.randn(shapes[0])
    inputs = [x, *(torch.zeros(shape, dtype=torch.bool) for shape in shapes[1:])]
    expected = net(*inputs)
    with torch.autocast("cpu", torch.bfloat16), Recorder() as recorder:
        found = net(*inputs)
    assert recorder.seen[0][0] == first
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_no_module_of_this_package_goes_round_it():
    """A convolution of torch's own that holds a kernel alone, without being called, is all right."""
    direct = re.compile(r"nn\.Conv[12]d\(|F\.conv[123]d\(|nn\.ConvTranspose|torch\.conv[123]d\(")
    root = Path(av_ssl.__file__).parent
    found = [path.name for path in sorted(root.rglob("*.py")) if direct.search(path.read_text())]
    assert found == []
