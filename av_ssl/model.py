"""A trained model and what it makes of recordings: features, text, word times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.checkpoints.loading import load
from av_ssl.data.clip_reader import ArrayClip
from av_ssl.data.reading import mapped_array
from av_ssl.errors import DataError, MediaError
from av_ssl.inference import EncoderFeatures, find_encoder
from av_ssl.layout import SAMPLES_PER_FRAME
from av_ssl.media.audio import read_audio
from av_ssl.media.recording import SPEAKER, crop_recording
from av_ssl.media.video import VideoReader
from av_ssl.targets.feature_shards import device_of
from av_ssl.transcription.recogniser import Recogniser, RecogniserSpec, SearchOptions
from av_ssl.transcription.recording import transcribe_recording
from av_ssl.transcription.transcript import Transcript

Recording = str | Path | NDArray[Any]
"""A file, or an array: frames uint8 ``[T, H, W]`` (gray) or ``[T, H, W, 3]`` (RGB) at 25 Hz, or samples
``[N]`` at 16 kHz, int16 or floating-point numbers from -1 to 1."""
CROP_MARGIN = 1.2
"""Frames are mouth crops without a look at them if their side is at most so many times the model's."""
WINDOW, CONTEXT = 1500, 50
"""Frames (60 s) that are encoded at a time, and those on each side (2 s) that are encoded for context alone:
the memory of attention grows with the square of the length."""


class Model:
    """A trained model, from `av_ssl.load`.

    Attributes that this class does not have are the module's, such as ``cfg`` (the model's configuration)
    and ``task_cfg`` (that of the data in its training).

    Args:
        path: a checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``; the module moves there with the first
            recording.

    Raises DataError as `av_ssl.load`.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        self.path, self.device = Path(path), device
        self.module: Any = load(path)

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # of an object that is being copied
            raise AttributeError(name)
        return getattr(self.module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def recogniser(self, modalities: str | None = None, beam: int = SearchOptions.beam) -> Recogniser:
        """For parts of recordings; DataError if the model is no recogniser."""
        device = device_of(self.device)
        spec = RecogniserSpec(self.path, modalities, device, SearchOptions(beam))
        return Recogniser(spec, device, self.module.to(device))

    def features(
        self,
        recording: Recording,
        audio: Recording | None = None,
        layers: Sequence[int] | None = None,
        modalities: str | None = None,
        face: str | int = SPEAKER,
    ) -> NDArray[np.float32]:
        """Outputs of the model's layers for a recording; see `av_ssl.features`."""
        encoder, streams = find_encoder(self.module, modalities, str(self.path))
        self.module.to(device_of(self.device))
        features = EncoderFeatures(encoder, streams, self.module.task_cfg, layers, str(self.path))
        clip = self._clip(recording, audio, streams, face)
        pieces = [features.of(window)[kept] for window, kept in windows(clip)]
        return np.concatenate(pieces).reshape(-1, len(features.layers), encoder.output_dim)
