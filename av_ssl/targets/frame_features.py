"""Features of single frames that are clustered: MFCC, or a layer of a trained audio-visual encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import read_wave
from av_ssl.errors import DataError, MediaError
from av_ssl.targets.encoder_features import EncoderFeatures, check_layers, open_encoder
from av_ssl.targets.kept_settings import digest
from av_ssl.targets.mfcc import MFCC_DIM, MFCC_RATE, WINDOW, mfcc

ENCODER_RATE = 25
"""Frames of an encoder a second."""

Frames = NDArray[np.float32]


class FrameFeatures(Protocol):
    """What turns a clip into features."""

    dim: int
    """Channels D."""

    def of(self, clip: Clip) -> Frames:
        """Features `[n, D]` of a whole clip; raises MediaError when it cannot be read."""


class FeatureSource(Protocol):
    """Says which features; small, so that it can be sent to other processes."""

    def open(self, rank: int = 0) -> FrameFeatures:
        """The features, the model loaded once a process; `rank` chooses among several GPUs."""


@dataclass(frozen=True)
class FeatureSpec:
    """Which features; small, so that it can be sent to other processes.

    Args:
        checkpoint: any pre-trained or fine-tuned model; None: MFCC.
        layer: of its Transformer, from 1.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
        modalities: `audio`, `video`, `av`: what the model is given; None: what it was trained with.
    """

    checkpoint: Path | None = None
    layer: int = 0
    device: str = "cpu"
    modalities: str | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have; raises DataError, as `open` does."""
        if self.checkpoint is None:
            return ("audio",)
        # On the CPU, since the machine that starts Slurm jobs may have no GPU.
        return open_encoder(self.checkpoint, self.modalities, "cpu")[0].streams

    @property
    def rate(self) -> int:
        """Frames a second."""
        return MFCC_RATE if self.checkpoint is None else ENCODER_RATE

    def settings(self) -> dict[str, Any]:
        """What decides the features' values; a checkpoint counts by its content."""
        if self.checkpoint is None:
            return {"features": "mfcc"}
        chosen = {} if self.modalities is None else {"modalities": self.modalities}
        return {"features": "encoder", "checkpoint": digest(self.checkpoint), "layer": self.layer, **chosen}

    def open(self, rank: int = 0) -> FrameFeatures:
        """The features, the model loaded once a process; `rank` chooses among several GPUs.

        Raises DataError when the checkpoint is missing, holds no encoder of these streams or lacks the
        layer, or the machine lacks the device.
        """
        if self.checkpoint is None:
            return MfccFeatures()
        device = device_of(self.device, rank)
        encoder, task_cfg = open_encoder(self.checkpoint, self.modalities, device)
        check_layers([self.layer], encoder, "--layer", first=1)
        return EncoderFeatures(encoder, task_cfg, [self.layer], str(self.checkpoint))


def device_of(device: str, rank: int) -> str:
    """`cpu`, or for `cuda` the GPU of shard `rank`, in turns; raises DataError where there is none."""
    if device != "cuda":
        return device
    if not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    return f"cuda:{rank % torch.cuda.device_count()}"


class MfccFeatures:
    """MFCC with differences, 39 channels at 100 Hz."""

    dim = MFCC_DIM

    def of(self, clip: Clip) -> Frames:
        assert clip.audio is not None
        wave = read_wave(clip.audio)
        if len(wave) < WINDOW:
            raise MediaError(f"{clip.audio}: lasts {len(wave)} samples, shorter than a window of {WINDOW}")
        return mfcc(wave)
