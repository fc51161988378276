"""A trained model over clips: layers as features, or class scores.

All ways to use a checkpoint stand on the same ground: `open_model` reads it, `stored_reader`
reads clips as the model was trained on them, `read_batches` puts them into batches on the model's device.
Transcripts, in `transcription.recogniser`, build on them, too.

    LayerSource(path, (6, 9)).open().of(clip)                   # [T, L * C], one clip at a time
    Classifier.open(path).embeddings(clips)                     # {id: [D]}, in batches

Features are computed clip by clip, without padding: another batch would change their last digits, and labels
made of them must not depend on how the work is divided.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import av_ssl.tasks  # noqa: F401 - registers all models
from av_ssl.checkpoints.files import model_file
from av_ssl.checkpoints.loading import load, load_untrained
from av_ssl.checkpoints.stored import stored_streams, untrained_streams
from av_ssl.classification.classifier import AVClassifier, FrontEnds
from av_ssl.data.classes import ClassificationDataset, Segmentation
from av_ssl.data.clip_reader import ClipReader, CropAndFlip
from av_ssl.data.collate import Sample
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.noise import NoiseMixer
from av_ssl.device import device_of
from av_ssl.errors import DataError
from av_ssl.io import digest
from av_ssl.layout import FRAME_RATE, STREAMS
from av_ssl.manifest import Clip
from av_ssl.methods.encoder_model import EncoderModel, Source
from av_ssl.targets.feature_shards import FrameFeatures
from av_ssl.targets.speech_teacher import TeacherSpec

logger = logging.getLogger(__name__)

Streams = tuple[str, ...]
Progress = Callable[[int, int], None]

CENTRE = np.random.default_rng(0)
"""For readers that draw nothing: a centred crop without noise."""
BATCHES_AHEAD = 2
"""Batches that are read while the model computes."""


# -- models, readers and batches -----------------------------------------------------------------------------


def open_model(
    checkpoint: Path, device: str = "cpu", untrained: int | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    """The model of a checkpoint on a device, in eval mode; the last one is kept and not read again.

    It has ``task_cfg``, ``text_encoder`` and ``class_names``, see :func:`av_ssl.checkpoints.loading.load`;
    with ``untrained``, a seed, it has random weights; ``dtype``: of its weights.
    """
    return _open_model(checkpoint, device, untrained, dtype)


@lru_cache(maxsize=1)
def _open_model(checkpoint: Path, device: str, untrained: int | None, dtype: torch.dtype) -> Any:
    model = load(checkpoint) if untrained is None else load_untrained(checkpoint, untrained)
    return model.to(device=device, dtype=dtype)


def stored_reader(
    task_cfg: Mapping[str, Any], streams: Streams, origin: str, noise: NoiseMixer | None = None
) -> ClipReader:
    """A reader of clips as a stored task read them in validation: frames cropped at the centre.

    Args:
        task_cfg: has ``normalize``, ``audio_input`` and ``image_crop_size``; DataError if one is missing.
        streams: to read.
        origin: the checkpoint, for messages.
        noise: added to the audio.
    """
    audio_input = str(task_cfg.get("audio_input") or "filterbank")  # the key is newer than some checkpoints
    needed = {
        "normalize": "audio" in streams and audio_input == "filterbank",
        "image_crop_size": "video" in streams,
    }
    missing = [key for key, wanted in needed.items() if wanted and task_cfg.get(key) is None]
    if missing:
        raise DataError(f"{origin}: its task section has no {' and no '.join(missing)}")
    return ClipReader(
        CropAndFlip(int(task_cfg.get("image_crop_size") or 0)),
        modalities=streams,
        audio_input=audio_input,
        normalize=bool(task_cfg.get("normalize")),
        noise=noise,
    )


def frame_batches(dataset: AudioVisualDataset, max_frames: int) -> list[list[int]]:
    """Indices of clips, longest first, in batches of at most ``max_frames`` frames, padding included.

    A longer clip is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in map(int, dataset.ordered_indices()):
        if not batches or longest * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
            longest = dataset.size(index)
        batches[-1].append(index)
    return batches


def read_batches(
    dataset: AudioVisualDataset, max_frames: int, device: torch.device, threads: int = 2
) -> Iterator[dict[str, Any]]:
    """Batches on the device, read ahead by threads; one of which no clip can be read is left out.

    Threads, because a worker process may not have child processes. Decoders release Python's lock.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting: deque[list[Any]] = deque()
        for batch in [*frame_batches(dataset, max_frames), *[None] * BATCHES_AHEAD]:
            waiting.append([pool.submit(dataset.__getitem__, index) for index in batch or ()])
            if len(waiting) > BATCHES_AHEAD:
                collated = dataset.collater([sample.result() for sample in waiting.popleft()])
                if collated:
                    yield {**collated, "net_input": moved(collated["net_input"], device)}


def moved(value: Any, device: torch.device) -> Any:
    """Nested dicts and lists with their tensors on the device."""
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


# -- layers --------------------------------------------------------------------------------------------------


LayeredEncoder = EncoderModel | FrontEnds
"""Whose layers can be read."""


def find_encoder(model: nn.Module, modalities: str | None, origin: str) -> tuple[LayeredEncoder, Streams]:
    """The encoder of a loaded model, and the streams that it is to be given.

    Args:
        model: pre-trained, fine-tuned, or a classifier.
        modalities: ``audio``, ``video``, ``av``; None: those that the model was trained with, or all of them
            if that is unknown.
        origin: the checkpoint, for messages.

    Raises DataError if no encoder takes these streams, or it is unclear which one is meant.
    """
    found = [part for part in model.modules() if isinstance(part, EncoderModel | FrontEnds)]
    choices = {streams: encoder for encoder in reversed(found) for streams in encoder.stream_choices}
    if not choices:
        raise DataError(f"{origin}: {type(model).__name__} has no encoder whose layers can be read")
    # The stored task may have had more streams than the model takes: LUPI's students take audio alone.
    only = next(iter(choices)) if len(choices) == 1 else STREAMS["av"]
    if modalities is not None:
        wanted = STREAMS.get(modalities, ())
    else:
        wanted = stored_streams(getattr(model, "task_cfg", {})) or only
        wanted = wanted if wanted in choices else only
    if wanted not in choices:
        names = [name for name, streams in STREAMS.items() if streams in choices]
        asked = f"--modalities {modalities}: " if modalities else "name --modalities: "
        raise DataError(
            f"{asked}{type(model).__name__} of {origin} has an encoder of {' and one of '.join(names)}"
        )
    if wrong := untrained_streams(getattr(model, "task_cfg", {}), wanted):
        logger.warning("%s %s: its features say little about it", origin, wrong)
    return choices[wanted], wanted


class EncoderFeatures:
    """Residual streams after layers of an encoder, of single clips without noise.

    Args:
        encoder: in eval mode, on its device.
        streams: that it is given.
        task_cfg: see `stored_reader`.
        layers: L of them; 0 is the input of the Transformer; None: all.
        origin: the checkpoint, for messages.
    """

    def __init__(
        self,
        encoder: LayeredEncoder,
        streams: Streams,
        task_cfg: Mapping[str, Any],
        layers: Sequence[int] | None = None,
        origin: str = "",
    ) -> None:
        self.encoder, self.streams = encoder, streams
        self.layers = tuple(range(encoder.depth + 1) if layers is None else layers)
        check_layers(self.layers, encoder.depth)
        self.dim = encoder.output_dim * len(self.layers)
        self.reader = stored_reader(task_cfg, streams, origin)

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Float32 ``[T, L * C]`` at 25 Hz, layer by layer; raises MediaError if the clip cannot be read."""
        return self.of_source(as_source(self.reader.read(0, clip, [], CENTRE))).flatten(1).cpu().numpy()

    @torch.inference_mode()
    def of_source(self, source: Source) -> Tensor:
        """Float32 ``[T, L, C]`` of a batch of one clip, without padding."""
        device = next(self.encoder.parameters()).device
        states = self.encoder.hidden_states(moved(source, device), None, last=max(self.layers))
        return torch.stack([states[number][0].float() for number in self.layers], dim=1)


def as_source(sample: Sample) -> Source:
    """The streams of one clip as a batch of one."""
    audio = video = None
    if sample.audio is not None:
        audio = torch.from_numpy(np.ascontiguousarray(sample.audio))
        audio = audio.reshape(1, -1) if audio.dtype == torch.int16 else audio.T[None]
    if sample.video is not None:
        video = torch.from_numpy(np.array(sample.video))[None, None]
    return {"audio": audio, "video": video}


def check_layers(layers: Sequence[int], depth: int, option: str = "--layers", first: int = 0) -> None:
    """Raise DataError for layers that an encoder of this depth lacks; it names the command's option."""
    if depth < first:
        raise DataError(f"{option}: this model has no Transformer, and so no layers from {first} on")
    if not layers:
        raise DataError(f"{option}: names no layer; this model has layers {first} to {depth}")
    for layer in layers:
        if layer not in range(first, depth + 1):
            raise DataError(f"{option} {layer}: this model has layers {first} to {depth}")


def open_features(
    checkpoint: Path,
    modalities: str | None,
    device: str,
    layers: Sequence[int] | None = None,
    untrained: int | None = None,
) -> EncoderFeatures:
    """Layers of a checkpoint's encoder; see `open_model`, `find_encoder` and `EncoderFeatures`."""
    model = open_model(checkpoint, device, untrained)
    encoder, streams = find_encoder(model, modalities, str(checkpoint))
    return EncoderFeatures(encoder, streams, model.task_cfg, layers, str(checkpoint))


@dataclass(frozen=True)
class LayerSource:
    """Layers of a model as a source of features; small, so that it can be sent to other processes.

    Args:
        checkpoint: a model's file, or the folder of a Hugging Face speech model, which takes audio only.
        layers: 0 is the input of the Transformer, which speech models do not give; None: all.
        modalities: ``audio``, ``video``, ``av``; None: those that the model was trained with.
        device: see `device_of`.
        untrained: seed of random weights in place of the checkpoint's; not for speech models.
    """

    checkpoint: Path
    layers: tuple[int, ...] | None = None
    modalities: str | None = None
    device: str = "cpu"
    untrained: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", model_file(self.checkpoint))
        if self.of_speech and self.modalities not in (None, "audio"):
            raise DataError(
                f"--modalities {self.modalities}: {self.checkpoint} is a speech model. Speech models take "
                "audio only; drop --modalities"
            )
        if self.of_speech and self.untrained is not None:
            raise DataError(f"--untrained: {self.checkpoint} is a speech model; drop the option")

    @property
    def of_speech(self) -> bool:
        return self.checkpoint.is_dir()

    @property
    def streams(self) -> Streams:
        return ("audio",) if self.of_speech else self._on_cpu().streams

    @property
    def rate(self) -> int:
        return FRAME_RATE * (self._speech_model("cpu").open().per_frame if self.of_speech else 1)

    def open(self, rank: int = 0) -> FrameFeatures:
        """Features ``[n, L * C]``, layer by layer; the model is loaded once a process."""
        if self.of_speech:
            return self._speech_model(self.device).open(rank)
        device = device_of(self.device, rank)
        return open_features(self.checkpoint, self.modalities, device, self.layers, self.untrained)

    def settings(self) -> dict[str, Any]:
        """What decides the features, and their sizes; a model counts by its content."""
        if self.of_speech:
            teacher = self._speech_model("cpu").open()
            layers, weights = teacher.layers, teacher.weights
            channels = teacher.dim // len(layers)
        else:
            features = self._on_cpu()
            layers, weights = list(features.layers), digest(self.checkpoint)
            channels = features.encoder.output_dim
        return {
            "weights": weights,
            "untrained": self.untrained,
            "layers": layers,
            "channels": channels,
            "rate": self.rate,
            "streams": list(self.streams),
        }

    def _on_cpu(self) -> EncoderFeatures:
        """For what needs no GPU: the machine that starts Slurm jobs may have none."""
        return open_features(self.checkpoint, self.modalities, "cpu", self.layers, self.untrained)

    def _speech_model(self, device: str) -> TeacherSpec:
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        return TeacherSpec(str(self.checkpoint), layers, "none", "stack", device)


@dataclass(frozen=True)
class FeatureSpec:
    """One layer of a model, for cluster labels; small, so that it can be sent to other processes.

    Args:
        checkpoint: any pre-trained or fine-tuned model.
        layer: of its Transformer, from 1.
        device: see `device_of`.
        modalities: ``audio``, ``video``, ``av``; None: those that the model was trained with.
    """

    checkpoint: Path
    layer: int
    device: str = "cpu"
    modalities: str | None = None
    rate: ClassVar[int] = FRAME_RATE

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", model_file(self.checkpoint))

    @property
    def streams(self) -> Streams:
        return self._on("cpu").streams

    def settings(self) -> dict[str, Any]:
        self._on("cpu")  # a layer that is missing is an error here, before work starts
        chosen = {} if self.modalities is None else {"modalities": self.modalities}
        return {"features": "encoder", "checkpoint": digest(self.checkpoint), "layer": self.layer, **chosen}

    def open(self, rank: int = 0) -> FrameFeatures:
        return self._on(device_of(self.device, rank))

    def _on(self, device: str) -> EncoderFeatures:
        model = open_model(self.checkpoint, device)
        encoder, streams = find_encoder(model, self.modalities, str(self.checkpoint))
        check_layers([self.layer], encoder.depth, "--layer", first=1)
        return EncoderFeatures(encoder, streams, model.task_cfg, [self.layer], str(self.checkpoint))


# -- classes and embeddings ----------------------------------------------------------------------------------


class Classifier:
    """Embeddings or class scores of entire clips, by a trained classifier or a student of LUPI.

    Args:
        model: in eval mode, on its device.
        noise: added to the audio.
        threads: that read clips.
        origin: the checkpoint, for messages.
    """

    BATCH_FRAMES = 4000
    """Frames of a batch (160 s), padding included."""

    def __init__(
        self, model: AVClassifier, noise: NoiseMixer | None = None, threads: int = 2, origin: str = ""
    ) -> None:
        self.model, self.threads = model, threads
        self.class_names: list[str] = list(model.class_names)
        cfg = model.task_cfg
        self.reader = stored_reader(cfg, model.encoder.streams, origin, noise)
        self.segmentation = Segmentation.of(int(cfg["segment_frames"]), int(cfg["segment_hop"]))

    @classmethod
    def open(
        cls, checkpoint: Path, device: str = "cpu", noise: NoiseMixer | None = None, threads: int = 2
    ) -> Classifier:
        """Read a checkpoint; DataError if it holds no classifier."""
        model = open_model(checkpoint, device_of(device, 0))
        if not isinstance(model, AVClassifier):
            raise DataError(
                f"{checkpoint}: holds {type(model).__name__}; needed is an av_classifier or lupi_student"
            )
        return cls(model, noise, threads, str(checkpoint))

    def embeddings(
        self, clips: Sequence[Clip], layer: str = "auto", progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Embeddings ``[D]`` by clip id, see `AVClassifier.embed`; DataError if a clip cannot be read."""
        return self._by_clip(clips, lambda **net_input: self.model.embed(layer=layer, **net_input), progress)

    def logits(
        self, clips: Sequence[Clip], progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits ``[C]`` by clip id, classes in the order of ``class_names``; DataError as `embeddings`."""
        if self.model.header is None:
            raise DataError("this student has no head yet: train it with model.phase=head")
        return self._by_clip(clips, lambda **net_input: self.model(**net_input)["logits"], progress)

    def _by_clip(
        self, clips: Sequence[Clip], compute: Callable[..., Tensor], progress: Progress
    ) -> dict[str, NDArray[np.float32]]:
        dataset = ClassificationDataset(
            clips=list(clips),
            reader=self.reader,
            classes=None,
            segmentation=self.segmentation,
            train=False,
            shuffle=False,
        )
        device = next(self.model.parameters()).device
        found: dict[str, NDArray[np.float32]] = {}
        progress(0, len(clips))
        for batch in read_batches(dataset, self.BATCH_FRAMES, device, self.threads):
            with torch.inference_mode():
                rows = compute(**batch["net_input"]).float().cpu().numpy()
            found.update(zip(batch["utt_id"], rows, strict=True))
            progress(len(found), len(clips))
        missing = [clip for clip in clips if clip.id not in found]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(clips)} clips cannot be read, e.g. {missing[0].id} (line "
                f"{missing[0].line} of its manifest); fix or remove them"
            )
        return found
