"""The encoder inside any model of this package, whose layers can be looked at.

Layers of a trained encoder, for single clips.

Layers of a model as a source of features for shards on disk: a checkpoint, or a speech model's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_ssl.checkpoints.loading import load, load_untrained
from av_ssl.classification.classifier import FrontEnds
from av_ssl.data.clip_reader import STREAMS, ClipReader, CropAndFlip
from av_ssl.data.collate import Sample
from av_ssl.data.reading import read_wave
from av_ssl.errors import DataError
from av_ssl.io import digest
from av_ssl.layout import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from av_ssl.methods.fused_encoder import AudioVisualEncoder, Source
from av_ssl.methods.raven.encoder import RavenEncoder
from av_ssl.targets.feature_shards import FrameFeatures, device_of
from av_ssl.targets.speech_teacher import SpeechTeacher, TeacherSpec

Layered = AudioVisualEncoder | RavenEncoder | FrontEnds


@dataclass(frozen=True)
class LayeredEncoder:
    """An encoder, and the streams that it is to be given.

    Args:
        encoder: in eval mode, on its device.
        streams: of `audio` and `video`.
    """

    encoder: Layered
    streams: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Layers of its Transformer; 0 where there is none."""
        if isinstance(self.encoder, FrontEnds):
            return 0
        return len(self.encoder.layer_stack()[0])

    @property
    def channels(self) -> int:
        """C."""
        if isinstance(self.encoder, AudioVisualEncoder | RavenEncoder):
            return int(self.encoder.cfg.encoder_embed_dim)
        return cast(FrontEnds, self.encoder).output_dim

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @torch.inference_mode()
    def layers(self, source: Source, wanted: tuple[int, ...]) -> Tensor:
        """Layers of one clip, float32 `[T, L, C]`; 0 is the input of the Transformer.

        Args:
            source: a batch of one, unpadded.
            wanted: layers, in the order in which they are to come.
        """
        states = self.encoder.hidden_states(source, None, last=max(wanted))
        return torch.stack([states[number][0].float() for number in wanted], dim=1)


def find_encoder(model: nn.Module, modalities: str | None, origin: str) -> LayeredEncoder:
    """The encoder of a loaded model (see :func:`~av_ssl.checkpoints.loading.load`).

    Args:
        model: pre-trained, fine-tuned, or a classifier.
        modalities: `audio`, `video`, `av`; None: what the model was trained with, all where that is unknown.
        origin: the checkpoint, for messages.

    Raises:
        DataError: the model has no encoder, several of which none is chosen, or none for these streams.
    """
    found = [part for part in model.modules() if isinstance(part, Layered)]
    choices = {streams: encoder for encoder in reversed(found) for streams in possible_streams(encoder)}
    if not choices:
        raise DataError(f"{origin}: {type(model).__name__} has no encoder whose layers can be read")
    stored = stored_modalities(getattr(model, "task_cfg", {}))
    # What the task had may be more than the model takes, as LUPI's students take sound alone.
    only = next(iter(choices)) if len(choices) == 1 else STREAMS["av"]
    wanted = STREAMS.get(modalities or stored or "", only)
    if modalities is None and wanted not in choices:
        wanted = only
    if wanted not in choices:
        names = [name for name, streams in STREAMS.items() if streams in choices]
        asked = f"--modalities {modalities}: " if modalities else "name --modalities: "
        raise DataError(
            f"{asked}{type(model).__name__} of {origin} has an encoder of {' and one of '.join(names)}"
        )
    return LayeredEncoder(choices[wanted], wanted)


def possible_streams(encoder: Layered) -> list[tuple[str, ...]]:
    """What an encoder can be given: fused ones any stream that they have a front-end for."""
    if isinstance(encoder, RavenEncoder):
        return [(encoder.modality,)]
    if isinstance(encoder, FrontEnds):
        return [tuple(stream for stream in STREAMS["av"] if getattr(encoder, stream) is not None)]
    has = {s for s in STREAMS["av"] if getattr(encoder, f"feature_extractor_{s}") is not None}
    return [streams for streams in STREAMS.values() if has.issuperset(streams)]


def stored_modalities(task_cfg: Mapping[str, Any]) -> str | None:
    """`audio`, `video` or `av` by a stored task, ours or AV-HuBERT's; None where it does not say."""
    stored = task_cfg.get("modalities")
    for name, streams in STREAMS.items():
        if stored == name or (isinstance(stored, list) and sorted(stored) == sorted(streams)):
            return name
    return None


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

    Raises DataError, see `av_ssl.checkpoints.loading.load` and `find_encoder`.
    """
    model = load(checkpoint) if untrained is None else load_untrained(checkpoint, untrained)
    encoder = find_encoder(model, modalities, str(checkpoint))
    encoder.encoder.to(device)
    return encoder, model.task_cfg


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

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have."""
        return tuple(self.settings()["streams"])

    @property
    def rate(self) -> int:
        """Frames a second."""
        return int(self.settings()["rate"])

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

    def _speech_model(self) -> TeacherSpec:
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        return TeacherSpec(str(self.checkpoint), layers, "none", "stack", self.device)


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


def _speech_settings(teacher: SpeechTeacher) -> dict[str, Any]:
    return {
        "weights": teacher.weights,
        "untrained": None,
        "layers": teacher.layers,
        "channels": teacher.dim // len(teacher.layers),
        "rate": teacher.per_frame * FRAME_RATE,
        "streams": ["audio"],
    }


@dataclass(frozen=True)
class FeatureSpec:
    """A layer of a model; small, so that it can be sent to other processes.

    Args:
        checkpoint: any pre-trained or fine-tuned model.
        layer: of its Transformer, from 1.
        device: `cpu`, or `cuda`: the GPUs of the machine take turns.
        modalities: `audio`, `video`, `av`: what the model is given; None: what it was trained with.
    """

    checkpoint: Path
    layer: int
    device: str = "cpu"
    modalities: str | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have; raises DataError, as `open` does."""
        # On the CPU, since the machine that starts Slurm jobs may have no GPU.
        return open_encoder(self.checkpoint, self.modalities, "cpu")[0].streams

    @property
    def rate(self) -> int:
        """Frames a second."""
        return FRAME_RATE

    def settings(self) -> dict[str, Any]:
        """What decides the features' values; a checkpoint counts by its content.

        Raises DataError, see `open`.
        """
        replace(self, device="cpu").open()
        chosen = {} if self.modalities is None else {"modalities": self.modalities}
        return {"features": "encoder", "checkpoint": digest(self.checkpoint), "layer": self.layer, **chosen}

    def open(self, rank: int = 0) -> FrameFeatures:
        """The features, the model loaded once a process; `rank` chooses among several GPUs.

        Raises DataError when the checkpoint is missing, holds no encoder of these streams or lacks the
        layer, or the machine lacks the device.
        """
        device = device_of(self.device, rank)
        encoder, task_cfg = open_encoder(self.checkpoint, self.modalities, device)
        check_layers([self.layer], encoder, "--layer", first=1)
        return EncoderFeatures(encoder, task_cfg, [self.layer], str(self.checkpoint))
