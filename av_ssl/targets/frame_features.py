"""Features of single frames that are clustered: MFCC, or a layer of a trained audio-visual encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.augment import CropAndFlip
from av_ssl.data.features import audio_features
from av_ssl.data.manifest import Clip
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.errors import DataError, MediaError
from av_ssl.targets.kept_settings import digest
from av_ssl.targets.mfcc import MFCC_DIM, MFCC_RATE, WINDOW, mfcc

if TYPE_CHECKING:
    from av_ssl.models.av_encoder import AudioVisualEncoder, Source

ENCODER_RATE = 25
"""Frames of an encoder a second."""
CENTRE = np.random.default_rng(0)
"""A centred crop draws nothing from it."""

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
        checkpoint: a fused audio-visual model (av_hubert, av2vec, or fine-tuned); None: MFCC.
        layer: of its Transformer, from 1.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
    """

    checkpoint: Path | None = None
    layer: int = 0
    device: str = "cpu"

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have."""
        return ("audio",) if self.checkpoint is None else ("audio", "video")

    @property
    def rate(self) -> int:
        """Frames a second."""
        return MFCC_RATE if self.checkpoint is None else ENCODER_RATE

    def settings(self) -> dict[str, Any]:
        """What decides the features' values; a checkpoint counts by its content."""
        if self.checkpoint is None:
            return {"features": "mfcc"}
        return {"features": "encoder", "checkpoint": digest(self.checkpoint), "layer": self.layer}

    def open(self, rank: int = 0) -> FrameFeatures:
        """The features, the model loaded once a process; `rank` chooses among several GPUs.

        Raises DataError when the checkpoint is missing, holds no fused encoder or lacks the layer, or the
        machine lacks the device.
        """
        if self.checkpoint is None:
            return MfccFeatures()
        return _load_encoder(self.checkpoint, self.layer, device_of(self.device, rank))


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


class EncoderFeatures:
    """The residual stream after a Transformer layer, from both clean streams, pictures cropped in the middle.

    Clips go through one at a time: padding, or another batch, would change the last digits, and labels must
    not depend on how the work is divided.

    Args:
        encoder: in eval mode, on its device.
        task_cfg: how the model was trained to hear and see: `normalize`, `image_crop_size`.
        layer: from 1.

    Raises DataError when the encoder lacks the layer.
    """

    def __init__(self, encoder: AudioVisualEncoder, task_cfg: Mapping[str, Any], layer: int) -> None:
        layers = len(encoder.encoder.layers)
        if not 1 <= layer <= layers:
            raise DataError(f"--layer {layer}: this model has layers 1 to {layers}")
        self.encoder = encoder
        self.layer = layer
        self.dim = int(encoder.cfg.encoder_embed_dim)
        self.normalize = bool(task_cfg["normalize"])
        self.crop = CropAndFlip(int(task_cfg["image_crop_size"]))
        self.device = next(encoder.parameters()).device

    @torch.inference_mode()
    def of(self, clip: Clip) -> Frames:
        assert clip.audio is not None
        assert clip.video is not None
        pictures = read_crops(clip.video)
        try:
            crop = self.crop.draw(pictures.shape[1], pictures.shape[2], CENTRE)
        except MediaError as error:
            raise MediaError(f"{clip.video}: {error}") from error
        heard = audio_features(read_wave(clip.audio), len(pictures), self.normalize)
        seen = np.ascontiguousarray(self.crop.apply(pictures, crop))
        source: Source = {
            "audio": torch.from_numpy(heard).T[None].to(self.device),
            "video": torch.from_numpy(seen)[None, None].to(self.device),
        }
        features, _ = self.encoder.extract_features(source, None, output_layer=self.layer)
        return features[0].float().cpu().numpy()


@lru_cache(maxsize=1)
def _load_encoder(checkpoint: Path, layer: int, device: str) -> EncoderFeatures:
    # Here, because models import this package.
    from av_ssl.models.av_encoder import AudioVisualEncoder
    from av_ssl.models.loading import load
    from av_ssl.models.pretrained import CheckpointError

    try:
        model = load(checkpoint)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    encoder = next((part for part in model.modules() if isinstance(part, AudioVisualEncoder)), None)
    if encoder is None:
        raise DataError(
            f"--checkpoint {checkpoint}: {type(model).__name__} has no fused audio-visual encoder"
        )
    missing = [key for key in ("normalize", "image_crop_size") if model.task_cfg.get(key) is None]
    if missing:
        raise DataError(f"--checkpoint {checkpoint}: its task section does not say {' and '.join(missing)}")
    return EncoderFeatures(encoder.to(device), model.task_cfg, layer)
