"""What training with a recipe costs: updates an epoch, multiply-adds, memory, checkpoints.

Multiply-adds are counted, memory is estimated from the layers: on the CPU, AV2vec base at 1040 real of 1300
frames measures 8.0 GB (benchmarks/training_step.py), the estimate is 7.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from fairseq.data.data_utils import batch_by_size
from torch import nn

from av_ssl.modules.spectrogram_frontend import STACK, SpectrogramResNet
from av_ssl.modules.transformer import TransformerEncoder
from av_ssl.modules.video_frontend import VisualResNet

TOKENS_PER_FRAME = 0.2  # of a decoder: about five pieces of words a second
SAVED_PER_CHANNEL = 17  # values that a Transformer layer keeps for its backward pass, per frame and channel
SAVED_PER_MAP = 3  # outputs of convolution, batch norm and activation
RESNETS = (VisualResNet, SpectrogramResNet)
OPTIMIZER_BYTES = 8  # a parameter: two moments of Adam in float32


@dataclass(frozen=True)
class Epoch:
    """One pass over the clips: batches of one GPU each, real frames and frames with padding."""

    clips: int
    batches: int
    frames: int
    padded_frames: int

    @classmethod
    def of(
        cls, lengths: Sequence[int], max_tokens: int | None, max_clips: int | None, multiple: int
    ) -> Epoch:
        """Batches as fairseq makes them of clips of so many frames, longest first."""
        sizes = np.sort(np.asarray(lengths, np.int64))[::-1].copy()
        batches = batch_by_size(
            np.arange(len(sizes)),
            lambda index: sizes[index],
            num_tokens_vec=sizes,
            max_tokens=max_tokens,
            max_sentences=max_clips,
            required_batch_size_multiple=multiple,
        )
        padded = sum(int(sizes[batch].max()) * len(batch) for batch in batches)
        return cls(len(sizes), len(batches), int(sizes.sum()), padded)

    def updates(self, gpus: int, update_freq: int) -> int:
        """Updates of an epoch on so many GPUs."""
        steps = ceil(self.batches / gpus)
        return max(1, ceil(steps / update_freq))


def multiply_adds(model: nn.Module, picture: int, frozen: bool = False) -> float:
    """Of a forward pass of the student, a video frame, at pictures of `picture` x `picture` pixels.

    Convolutions and linear layers; linear ones without gradient, as a teacher's, only with `frozen`.
    """
    resnets = [module for module in model.modules() if isinstance(module, RESNETS)]
    inside = {id(layer) for one in resnets if isinstance(one, VisualResNet) for layer in one.modules()}
    total = float(sum(layer.weight.numel() * area for r in resnets for layer, area in _maps(r, picture)))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv1d) and id(layer) not in inside:
            counts = frozen or any(parameter.requires_grad for parameter in layer.parameters())
            share = TOKENS_PER_FRAME if "decoder" in name.split(".") else 1.0
            total += counts * share * _weights(layer)
    return total


def _weights(layer: nn.Module) -> int:
    """Of a layer without its bias; with weight norm they are not one tensor."""
    return sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() > 1)


def _maps(resnet: nn.Module, picture: int) -> list[tuple[nn.Conv2d | nn.Conv3d, int]]:
    """Every convolution and the positions of its output, a video frame."""
    if isinstance(resnet, SpectrogramResNet):
        return _spectrogram_maps(resnet)
    assert isinstance(resnet, VisualResNet)
    stem = -(-picture // 2)
    maps: list[tuple[nn.Conv2d | nn.Conv3d, int]] = [
        (layer, stem**2) for layer in resnet.frontend3D if isinstance(layer, nn.Conv3d)
    ]
    side = -(-stem // 2)
    for stage in resnet.trunk.children():
        if next(layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)).stride[0] == 2:
            side = -(-side // 2)
        maps += [(layer, side**2) for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
    return maps


def _spectrogram_maps(resnet: SpectrogramResNet) -> list[tuple[nn.Conv2d | nn.Conv3d, int]]:
    rows, columns = resnet.bands, STACK
    maps: list[tuple[nn.Conv2d | nn.Conv3d, int]] = []
    for part in (resnet.stem, *resnet.stages):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        rows, columns = -(-rows // layers[0].stride[0]), columns // layers[0].stride[1]
        maps += [(layer, rows * columns) for layer in layers]
    return maps


class Memory(NamedTuple):
    """Bytes on one GPU: parameters with gradients and optimizer, and what the backward pass needs."""

    states: float
    activations: float


def memory(model: nn.Module, picture: int, frames: int, half: bool, averaged: bool = False) -> Memory:
    """Estimate for batches of `frames` frames.

    `half`: fp16 or bf16, with float32 copies of the weights. `averaged`: a teacher is their moving average.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    fixed = sum(parameter.numel() for parameter in model.parameters()) - trained
    width = 2 if half else 4
    copies = (
        2 * width + OPTIMIZER_BYTES + (8 if half else 0)
    )  # weights, gradients; float32 ones beside halves
    copies += 4 if averaged else 0
    values = 0.0
    for module in model.modules():
        if isinstance(module, RESNETS):
            values += sum(SAVED_PER_MAP * conv.out_channels * area for conv, area in _maps(module, picture))
        if isinstance(module, TransformerEncoder):
            values += SAVED_PER_CHANNEL * sum(p.shape[0] for p in _attention_outputs(module))
    return Memory(trained * copies + fixed * 4, values * width * frames)


def _attention_outputs(encoder: nn.Module) -> list[nn.Parameter]:
    """One weight `[C, C]` a layer."""
    return [p for name, p in encoder.named_parameters() if name.endswith("out_proj.weight")]


def checkpoint_bytes(model: nn.Module, half: bool) -> int:
    """Size of a training checkpoint: weights, and the optimizer's moments of those that are trained."""
    return sum(
        parameter.numel() * ((2 if half else 4) + (OPTIMIZER_BYTES if parameter.requires_grad else 0))
        for parameter in model.parameters()
    )


def checkpoints_kept(cfg: Any, max_update: int, updates_per_epoch: int) -> int:
    """Checkpoints that lie on the disk at the end of a run: last, best, and those kept on the way."""
    options = cfg.checkpoint
    kept = 2 - bool(cfg.dataset.disable_validation)
    if options.save_interval_updates > 0:
        all_of_them = max_update // options.save_interval_updates
        kept += all_of_them if options.keep_interval_updates < 0 else options.keep_interval_updates
    if not options.no_epoch_checkpoints:
        epochs = -(-max_update // updates_per_epoch) // max(1, options.save_interval)
        kept += epochs if options.keep_last_epochs < 0 else min(epochs, options.keep_last_epochs)
    return kept
