import numpy as np
import pytest
import torch
import torch.nn.functional as F

from av_ssl.modules import frontends
from av_ssl.modules.convolution import Conv2d, in_rows
from av_ssl.modules.frontends import PReLU, VideoFrontend, VisualResNet, real_frames, temporal_context


@pytest.fixture
def frontend():
    torch.manual_seed(0)
    return VideoFrontend(output_dim=12, width=4).eval()


def test_context_convolution_equals_3d_convolution():
    torch.manual_seed(0)
    video, weight = torch.randn(2, 7, 16, 16), torch.randn(3, 1, 5, 7, 7)
    expected = F.conv3d(video[:, None], weight, stride=(1, 2, 2), padding=(2, 3, 3))  # [B, 3, T, h, w]
    context = temporal_context(video, torch.arange(14), None)
    ours = F.conv2d(context, weight.squeeze(1), stride=2, padding=3)
    np.testing.assert_allclose(ours, expected.transpose(1, 2).flatten(0, 1), atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(frontend, training):
    """Not even the batch-norm statistics of training."""
    frontend.train(training)
    video = torch.randint(0, 256, (2, 1, 9, 24, 24), dtype=torch.uint8)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 6:] = True
    longer = torch.cat([video, torch.randint(0, 256, (2, 1, 4, 24, 24), dtype=torch.uint8)], dim=2)
    longer_padding = F.pad(padding, (0, 4), value=True)
    with torch.no_grad():
        short, long = frontend(video, padding), frontend(longer, longer_padding)
    np.testing.assert_allclose(long[:, :9], short, atol=1e-5)
    assert short[padding].abs().max() == 0
    assert long[longer_padding].abs().max() == 0


def test_bytes_are_normalised(frontend):
    video = torch.randint(0, 256, (1, 1, 5, 24, 24), dtype=torch.uint8)
    with torch.no_grad():
        np.testing.assert_allclose(frontend(video), frontend((video / 255.0 - 0.421) / 0.165), atol=1e-5)


def test_given_frame_index_equals_found_one(frontend):
    video = torch.randn(2, 1, 6, 24, 24)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    index = real_frames(padding, 2, 6, video.device)
    assert index.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    with torch.no_grad():
        assert torch.equal(frontend(video, padding, index), frontend(video, padding))


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (PReLU(6), torch.nn.PReLU(6)),
        (Conv2d(6, 3, 1, 2, bias=False), torch.nn.Conv2d(6, 3, 1, 2, bias=False)),
        (Conv2d(6, 3, 3, 1, 1), torch.nn.Conv2d(6, 3, 3, 1, 1)),
        (Conv2d(6, 3, 3, 2, 1, bias=False), torch.nn.Conv2d(6, 3, 3, 2, 1, bias=False)),
    ],
    ids=["prelu", "strided kernel of size 1", "kernel of size 3", "strided kernel of size 3"],
)
@pytest.mark.parametrize(
    "shape", [(2, 6, 5, 5), (2, 6, 4, 7), (35, 6, 3, 3), (17, 6, 2, 4), (5, 6, 6, 6), (2, 6, 1, 1)]
)
def test_layers_made_for_cpus_equal_torchs(ours, torchs, shape, monkeypatch):
    monkeypatch.setattr(
        frontends, "CACHED_VALUES", 100
    )  # PReLU's backward pass takes two or three clips at a time
    ours.load_state_dict(torchs.state_dict())
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for layer in (ours, torchs):
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, layer.weight])])
    torch.testing.assert_close(*results)


def test_small_maps_stand_side_by_side():
    """The convolution of 40 maps of 3 columns gets 3 rows of 16 maps, with a column of zeros after each."""
    seen = []
    maps = torch.randn(40, 2, 3, 3)
    in_rows(lambda rows: seen.append(rows) or rows, maps, 1)
    assert seen[0].shape == (3, 2, 3, 64)
    assert torch.equal(seen[0][1, :, :, 4:8], torch.nn.functional.pad(maps[17], (0, 1)))


def test_unknown_activation():
    with pytest.raises(ValueError, match="resnet_relu_type"):
        VideoFrontend(8, 4, "gelu")


@pytest.mark.parametrize(("size", "stem"), [(88, 22), (96, 24)])
def test_the_published_swish_front_end_takes_crops_of_any_size(size, stem):
    """The stem keeps all frames and a quarter of a picture's width; the trunk, an eighth of that."""
    torch.manual_seed(0)
    net, shapes = VisualResNet(4, "swish").eval(), []
    for module in (net.frontend3D[3], net.trunk):
        module.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        features = net(torch.randn(2, 29, size, size), torch.arange(58), None)
    assert shapes == [(2 * 29, 4, stem, stem), (2 * 29, 32, 3, 3)]
    assert features.shape == (2 * 29, 32)


def test_only_the_fused_front_end_draws_he_weights():
    """PyTorch's are uniform, with a third of He's variance at equal fans (1/(3 n) against 2/n: a sixth)."""
    torch.manual_seed(0)
    plain = VisualResNet(16, "prelu").trunk.layer4[1].conv2.weight
    he = VideoFrontend(8, 16).resnet.trunk.layer4[1].conv2.weight
    assert (he.var() / plain.var()).item() == pytest.approx(6, rel=0.05)


def test_a_compiler_gets_plain_operations():
    """Rows of maps and loops over clips help kernels that run one by one; inductor fails on them."""
    programs = []
    block = frontends.ResidualBlock(16, 16, 1, "prelu")
    block.compile(backend=lambda graph, inputs: programs.append(graph.code) or graph.forward)
    x = torch.randn(20, 16, 3, 3, requires_grad=True)
    assert block(x).shape == x.shape
    (program,) = programs
    assert program.count("conv2d(") == program.count("prelu(") == 2
    assert "pad(" not in program
