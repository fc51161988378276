"""Layers of a trained encoder, for single clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.augment import CropAndFlip
from av_ssl.data.clip_reader import ClipReader
from av_ssl.data.collate import Sample
from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError

if TYPE_CHECKING:
    from av_ssl.models.av_encoder import Source
    from av_ssl.models.layered_encoder import LayeredEncoder

CENTRE = np.random.default_rng(0)
"""A centred crop draws nothing from it."""


class EncoderFeatures:
    """Residual streams behind layers of an encoder, from clean streams, pictures cropped in the middle.

    Clips go through one at a time: padding, or another batch, would change the last digits, and labels must
    not depend on how the work is divided.

    Args:
        encoder: in eval mode, on its device.
        task_cfg: how the model was trained to hear and see: `normalize`, `audio_input`, `image_crop_size`.
        layers: L of them; 0 is the input of the Transformer.
        origin: the checkpoint, for messages.

    Raises DataError when the encoder lacks a layer, or the configuration does not say how clips are read.
    """

    def __init__(
        self, encoder: LayeredEncoder, task_cfg: Mapping[str, Any], layers: Sequence[int], origin: str = ""
    ) -> None:
        check_layers(layers, encoder)
        self.encoder = encoder
        self.layers = tuple(layers)
        self.dim = encoder.channels * len(self.layers)
        self.reader = _reader(encoder.streams, task_cfg, origin)

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Float32 `[T, L * C]` at 25 Hz, layer by layer; raises MediaError when the clip cannot be read."""
        sample = self.reader.read(0, clip, [], CENTRE)
        return self.encoder.layers(self._source(sample), self.layers).flatten(1).cpu().numpy()

    def _source(self, sample: Sample) -> Source:
        device, audio, video = self.encoder.device, None, None
        if sample.audio is not None:
            audio = torch.from_numpy(np.ascontiguousarray(sample.audio))
            audio = audio.reshape(1, -1) if audio.dtype == torch.int16 else audio.T[None]
            audio = audio.to(device)
        if sample.video is not None:
            video = torch.from_numpy(np.array(sample.video))[None, None].to(device)
        return {"audio": audio, "video": video}


def check_layers(
    layers: Sequence[int], encoder: LayeredEncoder, option: str = "--layers", first: int = 0
) -> None:
    """Raise DataError, which names the option, for layers that the encoder lacks."""
    for layer in layers:
        if not first <= layer <= encoder.depth:
            raise DataError(f"{option} {layer}: this model has layers {first} to {encoder.depth}")


def _reader(streams: tuple[str, ...], task_cfg: Mapping[str, Any], origin: str) -> ClipReader:
    audio_input = str(task_cfg.get("audio_input") or "filterbank")  # others came later
    needed = {"normalize": "audio" in streams and audio_input == "filterbank"}
    needed["image_crop_size"] = "video" in streams
    missing = [key for key, wanted in needed.items() if wanted and task_cfg.get(key) is None]
    if missing:
        raise DataError(f"{origin}: its task section does not say {' and '.join(missing)}")
    return ClipReader(
        CropAndFlip(int(task_cfg.get("image_crop_size") or 0)),
        modalities=streams,
        audio_input=audio_input,
        normalize=bool(task_cfg.get("normalize")),
    )


@lru_cache(maxsize=1)
def open_encoder(
    checkpoint: Path, modalities: str | None, device: str, untrained: int | None = None
) -> tuple[LayeredEncoder, dict[str, Any]]:
    """The encoder of a checkpoint, read once a process, and the configuration of its task.

    Args:
        checkpoint: of any model of this package, AV-HuBERT's or RAVEn's.
        modalities: `audio`, `video`, `av`; None: what it was trained with.
        device: of torch.
        untrained: seed of weights at random in place of the checkpoint's.

    Raises DataError, see `av_ssl.models.loading.load` and `find_encoder`.
    """
    # Here, because models import this package.
    from av_ssl.models.layered_encoder import find_encoder
    from av_ssl.models.loading import load, load_untrained

    model = load(checkpoint) if untrained is None else load_untrained(checkpoint, untrained)
    encoder = find_encoder(model, modalities, str(checkpoint))
    encoder.encoder.to(device)
    return encoder, model.task_cfg
