"""Front-ends: from audio or video to one feature vector a video frame (25 Hz).

- ``AudioFrontend``: one linear layer on stacked log-mel filterbanks (AV-HuBERT, Shi et al., 2022);
- ``VideoFrontend``: a spatio-temporal convolution, a ResNet-18 on each frame and a linear layer (AV-HuBERT,
  section 3 and appendix A);
- ``WaveformResNet``: a convolution and a 1-D ResNet-18 on raw audio (RAVEn, Haliassos et al., 2023,
  section 3).

Architectures and tensor names are those of the published weights.  Only the order of the work differs: video
frames that are padding are left out before the first convolution.  That saves their cost and keeps batch-norm
statistics independent of the padding; the originals compute padding too, so in training their statistics are
those of real and padded frames together.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from fairseq.modules import GradMultiply
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from av_ssl.layout import IMAGE_MEAN, IMAGE_STD
from av_ssl.modules.convolution import Conv1d, Conv2d, convolve, is_compiling


def with_scaled_gradient(extract: Callable[[], Tensor], scale: float) -> Tensor:
    """Call ``extract``; the gradient into its result is multiplied by ``scale`` (0: no backward pass)."""
    if scale <= 0:
        with torch.no_grad():
            return extract()
    features = extract()
    return features if scale == 1.0 or not features.requires_grad else GradMultiply.apply(features, scale)


# -- ResNet-18 (He et al., 2016), under torchvision's names --------------------------------------------------

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: Conv1d, 2: Conv2d}
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class ResidualBlock(nn.Module):
    """Two convolutions of size 3 with a shortcut, each with an activation, see :class:`ResNetTrunk`."""

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str, dims: int = 2) -> None:
        super().__init__()
        conv, norm = CONVOLUTIONS[dims], BATCH_NORMS[dims]
        self.conv1 = conv(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.relu1 = make_activation(activation, channels)
        self.conv2 = conv(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.relu2 = make_activation(activation, channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                conv(channels_in, channels, 1, stride, bias=False), norm(channels)
            )

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = silenced(self.relu1(self.bn1(self.conv1(x))), padding_mask)
        return silenced(self.relu2(self.bn2(self.conv2(x)).add_(shortcut)), padding_mask)


class ResNetTrunk(nn.Module):
    """ResNet-18 without stem and pooling: ``[N, width, ...]`` -> ``[N, 8 * width, .../8]``.

    Args:
        width: channels of the first stage; each of the three others has twice as many as the one before.
        activation: ``prelu``, ``relu`` or ``swish``.
        dims: 1 for waveforms, 2 for images.
    """

    def __init__(self, width: int, activation: str, dims: int = 2) -> None:
        super().__init__()
        channels_in = width
        for stage in range(4):
            channels = width << stage
            blocks = [
                ResidualBlock(channels_in, channels, 1 if stage == 0 else 2, activation, dims),
                ResidualBlock(channels, channels, 1, activation, dims),
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels_in = channels

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Run the stages; ``padding_mask`` is for waveforms, see :func:`silenced`."""
        for stage in range(1, 5):
            for block in getattr(self, f"layer{stage}"):
                x = block(x, padding_mask)
        return x


def silenced(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Zero the padded frames of ``x [B, C, T * k]``: ``padding_mask`` bool ``[B, T]``; None: no padding.

    A convolution then gets the same values after the end of a clip as after the end of the batch.
    """
    if padding_mask is None:
        return x
    by_frame = x.unflatten(-1, (padding_mask.size(1), -1))
    return by_frame.masked_fill(padding_mask[:, None, :, None], 0).flatten(-2)


def init_he(trunk: nn.Module) -> None:
    """Draw all 2-D kernels as He et al. (2015), by their fan-out, instead of PyTorch's initial values."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))


class PReLU(nn.PReLU):
    """``nn.PReLU`` for ``[N, C, ...]``; its backward pass is faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        eager = not is_compiling()  # a compiler would unroll the loop over clips
        if eager and input.device.type == "cpu" and input.requires_grad:
            return cast(Tensor, _PReLU.apply(input, self.weight))
        return super().forward(input)


class _PReLU(torch.autograd.Function):
    """Of operations that torch computes with vector instructions, which its kernel for CPUs lacks.

    Some clips at a time, so that what is between two operations stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes)
        return F.prelu(x, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slopes = ctx.saved_tensors
        by_channel = slopes.view(-1, *[1] * (x.dim() - 2))
        others = [axis for axis in range(x.dim()) if axis != 1]
        to_x, to_slopes = torch.empty_like(x), torch.zeros_like(slopes, dtype=torch.float32)
        rows = max(1, CACHED_VALUES // max(1, x[:1].numel()))
        for g, values, above in zip(*(each.split(rows) for each in (gradient, x, to_x)), strict=True):
            # the gradient where x is above 0
            torch.ops.aten.threshold_backward.grad_input(g, values, 0, grad_input=above)
            below = g - above
            above.addcmul_(below, by_channel)
            to_slopes += below.mul_(values).sum(others)
        return to_x, to_slopes.to(slopes.dtype)


CACHED_VALUES = 1 << 16


def make_activation(name: str, channels: int) -> nn.Module:
    """``prelu`` (a slope a channel), ``relu``, or ``swish`` (x * sigmoid(x))."""
    if name == "prelu":
        return PReLU(channels)
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "swish":
        return nn.SiLU()
    raise ValueError(f"resnet_relu_type is {name!r}; it must be prelu, relu or swish")


# -- filterbanks ---------------------------------------------------------------------------------------------


class AudioFrontend(nn.Module):
    """Stacked filterbanks at 25 Hz -> one feature vector a frame; ``encoder`` follows if it is set."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(input_dim, output_dim)
        self.encoder: nn.Module | None = None

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, input_dim, T]`` -> ``[B, T, C]``."""
        x = self.proj(audio.transpose(1, 2).to(self.proj.weight.dtype))
        return x if self.encoder is None else self.encoder(x)


# -- video ---------------------------------------------------------------------------------------------------

KERNEL_FRAMES = 5


class VisualResNet(nn.Module):
    """Spatio-temporal stem and ResNet-18 trunk, computed for the given frames only.

    Its weights are PyTorch's initial ones; callers draw others (:func:`init_he`).  ``width`` is the number of
    channels of the stem and of the first stage (64 in AV-HuBERT).
    """

    def __init__(self, width: int = 64, activation: str = "prelu") -> None:
        super().__init__()
        # The layers keep the classes' parameter names and shapes; the 3-D convolution runs as a 2-D one over
        # 5 frames.
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, width, (KERNEL_FRAMES, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm2d(width),
            make_activation(activation, width),
            nn.MaxPool2d(3, 2, 1),
        )
        self.trunk = ResNetTrunk(width, activation)

    def forward(self, video: Tensor, frame_index: Tensor, padding_mask: Tensor | None) -> Tensor:
        """``video [B, T, H, W]`` (normalised), flat ``frame_index [F]`` (b*T+t) -> ``[F, 8 * width]``."""
        conv, *rest = self.frontend3D
        # conv is a Conv3d(1, width): its kernel over 5 frames of 1 channel is a 2-D kernel over 5 channels.
        weight = cast(Tensor, conv.weight).squeeze(1).contiguous(memory_format=torch.channels_last)
        x = temporal_context(video, frame_index, padding_mask)
        x = convolve(F.conv2d, x, weight, stride=2, padding=3)
        for layer in rest:
            x = layer(x)
        return self.trunk(x).mean(dim=(2, 3))


class VideoFrontend(nn.Module):
    """Grayscale mouth crops at 25 Hz -> one feature vector a frame; ``encoder`` follows if it is set.

    Args:
        width, activation: see :class:`VisualResNet`.
        mean, std: of the grayscale values on the scale 0..1, applied to ``uint8`` input on its device.
    """

    def __init__(
        self,
        output_dim: int,
        width: int = 64,
        activation: str = "prelu",
        mean: float = IMAGE_MEAN,
        std: float = IMAGE_STD,
    ) -> None:
        super().__init__()
        self.resnet = VisualResNet(width, activation)
        init_he(self.resnet.trunk)
        self.proj = nn.Linear(8 * width, output_dim)
        self.mean, self.std = mean, std
        self.encoder: nn.Module | None = None

    def forward(
        self, video: Tensor, padding_mask: Tensor | None = None, frame_index: Tensor | None = None
    ) -> Tensor:
        """Features ``[B, T, C]`` of the real frames; those of padding are zero.

        Args:
            video: ``[B, 1, T, H, W]``, ``uint8`` grayscale values, or floats that are normalised already.
            padding_mask: bool ``[B, T]``, True on padding.
            frame_index: int64 ``[F]``, flat indices b*T+t of the real frames. The data pipeline gives it so
                that the step never waits for the device; None: computed from ``padding_mask``.
        """
        batch, _, frames = video.shape[:3]
        if frame_index is None:
            frame_index = real_frames(padding_mask, batch, frames, video.device)
        x = normalized(video, self.mean, self.std, self.proj.weight.dtype).squeeze(1)
        x = self.proj(self.resnet(x, frame_index, padding_mask))
        x = unpacked(x, frame_index, batch, frames)
        return x if self.encoder is None else self.encoder(x)


def normalized(video: Tensor, mean: float, std: float, dtype: torch.dtype) -> Tensor:
    """Normalise ``uint8`` values by ``mean`` and ``std`` on the scale 0..1; floats are normalised already."""
    if video.dtype != torch.uint8:
        return video.to(dtype)
    return video.float().sub_(255 * mean).div_(255 * std).to(dtype)


def unpacked(x: Tensor, frame_index: Tensor, batch: int, frames: int) -> Tensor:
    """Features of the real frames ``[F, C]`` in their places, zeros elsewhere: ``[B, T, C]``."""
    return x.new_zeros(batch * frames, x.size(-1)).index_copy(0, frame_index, x).view(batch, frames, -1)


def real_frames(padding_mask: Tensor | None, batch: int, frames: int, device: torch.device) -> Tensor:
    """Flat indices b*T+t of frames that are not padding, int64 ``[F]``."""
    if padding_mask is None:
        return torch.arange(batch * frames, device=device)
    return (~padding_mask).flatten().nonzero().squeeze(1)


def temporal_context(video: Tensor, frame_index: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Stack each frame with its two neighbours on either side, zeros beyond the clip.

    ``video [B, T, H, W]``, ``frame_index [F]`` -> ``[F, 5, H, W]`` in channels-last layout.
    """
    if padding_mask is not None:
        video = video.masked_fill(padding_mask[..., None, None], 0)
    margin = KERNEL_FRAMES // 2
    padded = F.pad(video, (0, 0, 0, 0, margin, margin))
    start = frame_index + 2 * margin * (frame_index // video.size(1))  # each clip is 4 frames longer now
    if torch.onnx.is_in_onnx_export():  # it has no unfold of a length that may change
        return torch.stack([padded.flatten(0, 1)[start + place] for place in range(KERNEL_FRAMES)], dim=1)
    windows = padded.flatten(0, 1).unfold(0, KERNEL_FRAMES, 1)  # [B * (T + 4) - 4, H, W, 5], a view
    return windows.index_select(0, start).permute(0, 3, 1, 2)


# -- waveforms -----------------------------------------------------------------------------------------------

FULL_SCALE = 32768
POOLED = 20
"""Positions of the last stage that make one video frame."""
FRAME_SAMPLES = 4 * 2**3 * POOLED
"""640: samples of one video frame (16 kHz / 25 Hz); strides are 4 in the stem and 2 in three stages."""


class WaveformTrunk(ResNetTrunk):
    """Stem and four stages: ``[B, 1, 640 * T]`` -> ``[B, 8 * width, 20 * T]``."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__(width, activation, dims=1)
        self.conv1 = Conv1d(1, width, kernel_size=80, stride=4, padding=38, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = make_activation(activation, width)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        x = self.relu(self.bn1(self.conv1(silenced(x, padding_mask))))
        return super().forward(silenced(x, padding_mask), padding_mask)


class WaveformResNet(nn.Module):
    """A waveform at 16 kHz -> one feature vector a video frame (40 ms).

    In training, padding is computed like audio, as in the original: after the first batch norm it is no
    longer zero, so that the last few frames of a clip depend on the padding.  With running statistics (eval
    mode) it is zeroed before every convolution, so that a clip has the same features in every batch, as in
    the original.  ``width`` is the number of channels of the stem and of the first stage (64 in RAVEn).
    """

    def __init__(self, width: int = 64, activation: str = "swish") -> None:
        super().__init__()
        self.trunk = WaveformTrunk(width, activation)

    def forward(self, audio: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """``[B, 640 * T]`` -> ``[B, T, 8 * width]``; samples beyond the last whole frame are left out.

        Args:
            audio: ``int16`` samples, or floats on the scale -1..1.
            padding_mask: bool ``[B, T]``, True on padding; of no effect in training.
        """
        frames = audio.size(-1) // FRAME_SAMPLES
        if not frames:
            raise ValueError(
                f"a waveform of {audio.size(-1)} samples is shorter than one video frame "
                f"({FRAME_SAMPLES} samples at 16 kHz)"
            )
        x = audio[:, : frames * FRAME_SAMPLES]
        if self.trunk.bn1.training:
            padding_mask = None
        x = self.trunk(scaled(x, self.trunk.conv1.weight.dtype)[:, None], padding_mask)
        return F.avg_pool1d(x, POOLED).transpose(1, 2)


def scaled(audio: Tensor, dtype: torch.dtype) -> Tensor:
    """Samples on the scale -1..1: ``int16`` is divided by 32768, floats are so already."""
    if audio.dtype == torch.int16:
        return audio.to(torch.float32).div_(FULL_SCALE).to(dtype)
    return audio.to(dtype)
