"""Layers of a model as a source of features for shards on disk: a checkpoint, or a speech model's folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import FRAME_RATE, SAMPLES_PER_FRAME, read_wave
from av_ssl.errors import DataError
from av_ssl.targets.encoder_features import EncoderFeatures, open_encoder
from av_ssl.targets.frame_features import FrameFeatures, device_of
from av_ssl.targets.kept_settings import digest
from av_ssl.targets.teacher_features import TeacherFeatures, TeacherSource
from av_ssl.targets.teacher_spec import TeacherSpec


@dataclass(frozen=True)
class LayerSource:
    """Which layers of what; small, so that it can be sent to other processes.

    Args:
        checkpoint: a model's file, or the folder of a Hugging Face speech model.
        layers: 0 is the input of the Transformer, which speech models do not give; None: all.
        modalities: `audio`, `video`, `av`; None: what the model was trained with.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
        untrained: seed of random weights in place of the checkpoint's; None: the checkpoint's.

    Raises DataError when a speech model is to see, or to be untrained.
    """

    checkpoint: Path
    layers: tuple[int, ...] | None = None
    modalities: str | None = None
    device: str = "cpu"
    untrained: int | None = None

    def __post_init__(self) -> None:
        if self.of_speech and self.modalities not in (None, "audio"):
            raise DataError(f"--modalities {self.modalities}: {self.checkpoint} is a speech model, it hears")
        if self.of_speech and self.untrained is not None:
            raise DataError(f"--untrained: {self.checkpoint} is a speech model; leave the option out")

    @property
    def of_speech(self) -> bool:
        """Whether it is a speech model of Hugging Face."""
        return self.checkpoint.is_dir()

    def open(self, rank: int = 0) -> FrameFeatures:
        """Features `[n, L * C]`, layer by layer; the model is loaded once a process.

        Raises DataError when it cannot be loaded, lacks a layer, or the machine lacks the device.
        """
        if self.of_speech:
            return self._speech_model().open(rank)
        device = device_of(self.device, rank)
        encoder, task_cfg = open_encoder(self.checkpoint, self.modalities, device, self.untrained)
        layers = range(encoder.depth + 1) if self.layers is None else self.layers
        return EncoderFeatures(encoder, task_cfg, layers, str(self.checkpoint))

    def settings(self) -> dict[str, Any]:
        """What decides the features, and their sizes; the model counts by its content.

        Raises DataError, see `open`.
        """
        if self.of_speech:
            return _speech_settings(replace(self, device="cpu")._speech_model().open())
        encoder, task_cfg = open_encoder(self.checkpoint, self.modalities, "cpu", self.untrained)
        layers = range(encoder.depth + 1) if self.layers is None else self.layers
        opened = EncoderFeatures(encoder, task_cfg, layers, str(self.checkpoint))
        return {
            "weights": digest(self.checkpoint),
            "untrained": self.untrained,
            "layers": list(opened.layers),
            "channels": encoder.channels,
            "rate": FRAME_RATE,
            "streams": list(encoder.streams),
        }

    def _speech_model(self) -> TeacherSource:
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        spec = TeacherSpec(str(self.checkpoint), layers, norm="none", combine="stack")
        return TeacherSource(spec, self.device)


def clip_features(
    checkpoint: Path,
    video: Path | None = None,
    audio: Path | None = None,
    layers: tuple[int, ...] | None = None,
    modalities: str | None = None,
) -> NDArray[np.float32]:
    """Layers `[n, L, C]` of one clip; see `av_ssl.features`."""
    if modalities is None and (video is None or audio is None):
        modalities = "audio" if video is None else "video"
    source = LayerSource(checkpoint, layers, modalities)
    settings = source.settings()
    given = {"audio": audio, "video": video}
    for stream in settings["streams"]:
        if given[stream] is None:
            raise DataError(
                f"{checkpoint} is given {' and '.join(settings['streams'])}; name a file of {stream}"
            )
    samples = 0 if audio is None else len(read_wave(audio))
    clip = Clip("clip", video, audio, samples // SAMPLES_PER_FRAME, samples, line=0)
    found = source.open().of(clip)
    return found.reshape(len(found), len(settings["layers"]), settings["channels"])


def _speech_settings(features: TeacherFeatures) -> dict[str, Any]:
    teacher = features.teacher
    return {
        "weights": features.weights,
        "untrained": None,
        "layers": teacher.layers,
        "channels": teacher.dim // len(teacher.layers),
        "rate": teacher.per_frame * FRAME_RATE,
        "streams": ["audio"],
    }
