"""A trained model and what it makes of recordings: features, text, word times."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.checkpoints.files import model_file
from av_ssl.checkpoints.loading import assemble, load
from av_ssl.data.clip_reader import ArrayClip
from av_ssl.data.reading import read_crops
from av_ssl.device import device_of
from av_ssl.errors import DataError
from av_ssl.inference import EncoderFeatures, LayerSource, find_encoder, open_model
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, STREAMS, crop_side
from av_ssl.media.audio import read_audio
from av_ssl.media.container import has_film, open_media, stated_seconds
from av_ssl.media.crops import MIN_FRAMES
from av_ssl.media.face_crops import are_mouth_crops
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.recording import (
    LOOKED_AT,
    PART_SECONDS,
    SPEAKER,
    MouthCrops,
    Part,
    RecordingLike,
    as_source,
    crop_recording,
    name_of,
)
from av_ssl.media.sources import AUDIO_SUFFIXES
from av_ssl.media.video import VideoReader
from av_ssl.sharing.folder import ErrorRates, from_pretrained, save_pretrained
from av_ssl.transcription.onnx_recogniser import OnnxRecogniser
from av_ssl.transcription.recogniser import Recogniser, RecogniserSpec, SearchOptions
from av_ssl.transcription.recording import RecordingOptions, chosen_streams, transcribe_recording
from av_ssl.transcription.transcript import Segment, SpeechRecogniser, Transcript

logger = logging.getLogger(__name__)
ONNX = ".onnx"
DIFFERENCE, LEAST_DIFFERENCE = 0.1, 0.5
"""Share of the recording's length, and seconds, by which that of samples may differ: more is another rate."""
READY = 1.2
"""Square frames are used as they are if their side is at most so many times what the model takes of it: crops
of entire faces, too. A warning says so if no mouth is in their middle."""
WINDOW, CONTEXT = 1500, 50
"""Frames (60 s) that are encoded at a time, and those at each end (2 s) that are only context: the memory of
attention grows with the square of the length."""


class Model:
    """A trained model, from `av_ssl.load`.

    Attributes that this class does not have are those of the module, such as ``cfg`` (the model's
    configuration) and ``task_cfg`` (that of the data in its training).

    Args:
        path: a checkpoint, or a recogniser in ONNX, whose ``module`` is None and which gives text alone.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``; the module is on the CPU until the
            first recording.
        module: of the checkpoint; None: it is read.

    Raises DataError as `av_ssl.load`.
    """

    def __init__(self, path: str | Path, device: str = "auto", module: Any = None) -> None:
        self.path, self.device = Path(path), device
        self.onnx = OnnxRecogniser(self.path) if self.path.suffix == ONNX else None
        self.module: Any = load(path) if module is None and self.onnx is None else module

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None, device: str = "auto") -> Model:
        """See `av_ssl.from_pretrained`."""
        return cls(name, device, assemble(from_pretrained(name, revision)))

    def save_pretrained(
        self,
        folder: str | Path,
        license: str = "other",
        error_rates: ErrorRates | None = None,
        **hub: Any,
    ) -> list[Path]:
        """Write a folder to share the model in; see `av_ssl.sharing.folder.save_pretrained`."""
        stored = replace(self._of_torch.stored, tensors=self.module.state_dict())
        return save_pretrained(stored, folder, license, error_rates, **hub)

    @property
    def _of_torch(self) -> Any:
        """The module; DataError if there is none."""
        if self.module is None:
            raise DataError(
                f"{self.path}: an ONNX file gives text alone; name the checkpoint that it is from"
            )
        return self.module

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # while an object is copied it has none yet
            raise AttributeError(name)
        return getattr(self.module, name)

    def __repr__(self) -> str:
        """For example ``Model('vsr.pt': AVHubertSeq2Seq, 103.3 M parameters)``."""
        if self.module is None:
            return f"Model({str(self.path)!r}: ONNX)"
        count = sum(parameter.numel() for parameter in self.module.parameters())
        return f"Model({str(self.path)!r}: {type(self.module).__name__}, {count / 1e6:.1f} M parameters)"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward pass."""
        return self.module(*args, **kwargs)

    def recogniser(self, modalities: str | None = None, beam: int = SearchOptions.beam) -> SpeechRecogniser:
        """The model as a `SpeechRecogniser`; DataError if it has no dictionary."""
        if self.onnx is not None:
            self.onnx.beam = SearchOptions(beam).beam
            return self.onnx
        device = device_of(self.device)
        spec = RecogniserSpec(self.path, modalities, device, SearchOptions(beam))
        return Recogniser(spec, device, self.module.to(device))

    def transcribe(
        self,
        recording: RecordingLike | MouthCrops | None = None,
        audio: RecordingLike | None = None,
        word_timestamps: bool = False,
        face: str | int = SPEAKER,
        modalities: str | None = None,
        beam: int = SearchOptions.beam,
    ) -> Transcript:
        """The text of a recording; see `av_ssl.transcribe`."""
        given = _RecordingInput(recording, audio, self._crop_size)
        recogniser = self.recogniser(modalities, beam)
        modalities = modalities or given.only_stream
        streams, _ = chosen_streams(recogniser, modalities)
        crops = given.crops if "video" in streams else None
        if crops is None or not MIN_FRAMES <= len(crops) <= PART_SECONDS * FRAME_RATE:
            if crops is not None:
                given.check_crops()
            options = RecordingOptions(face, modalities, word_timestamps, cropped=crops is not None)
            return transcribe_recording(recogniser, given.source, options, given.sound)
        clip = given.clip(streams, face, str(self.path))
        (found,) = recogniser.recognise([Part(0.0, clip.pixels, clip.wave)], streams, word_timestamps)
        name = next(name for name, choice in STREAMS.items() if choice == streams)
        end = clip.frames / FRAME_RATE
        return Transcript((Segment(0.0, end, found.text, found.words, found.confidence, name),))

    def features(
        self,
        recording: RecordingLike | MouthCrops | None = None,
        audio: RecordingLike | None = None,
        layers: Sequence[int] | None = None,
        modalities: str | None = None,
        face: str | int = SPEAKER,
    ) -> NDArray[np.float32]:
        """Outputs of the model's layers for a recording; see `av_ssl.features`."""
        given = _RecordingInput(recording, audio, self._crop_size)
        encoder, streams = find_encoder(self._of_torch, modalities or given.only_stream, str(self.path))
        self.module.to(device_of(self.device))
        features = EncoderFeatures(encoder, streams, self.module.task_cfg, layers, str(self.path))
        clip = given.clip(streams, face, str(self.path))
        found = np.concatenate([features.of(window)[kept] for window, kept in windows(clip)])
        return found.reshape(len(found), len(features.layers), encoder.output_dim)

    @property
    def _crop_size(self) -> int:
        if self.onnx is not None:
            return self.onnx.crop_size
        return int(self.module.task_cfg.get("image_crop_size") or 0)


def opened(model: Model | str | Path) -> Model:
    """A model, or that of a file; the model of the last file is kept."""
    if isinstance(model, Model):
        return model
    path = Path(model)
    return Model(path) if path.suffix == ONNX else Model(path, module=open_model(path, device_of("auto")))


def features_of(
    model: Model | str | Path,
    recording: RecordingLike | MouthCrops | None,
    audio: RecordingLike | None = None,
    layers: Sequence[int] | None = None,
    modalities: str | None = None,
    face: str | int = SPEAKER,
) -> NDArray[np.float32]:
    """See `av_ssl.features`."""
    if isinstance(model, Model) or not model_file(Path(model)).is_dir():
        return opened(model).features(recording, audio, layers, modalities, face)
    source = LayerSource(Path(model), None if layers is None else tuple(layers), modalities, "auto")
    settings = source.settings()
    clip = _RecordingInput(recording, audio, 0).clip(source.streams, face, str(model))
    found = source.open().of(clip)
    return found.reshape(len(found), len(settings["layers"]), settings["channels"])


# -- what is given -------------------------------------------------------------------------------------------


def same_length(one: float, other: float | None) -> bool:
    """Whether sound and frames of so many seconds can be of one recording; False if a length is unknown."""
    return other is not None and abs(one - other) <= max(LEAST_DIFFERENCE, DIFFERENCE * one)


class _RecordingInput:
    """A recording and its sound, as a user names them.

    Args:
        recording, audio: see `RecordingLike`; one of them may be None. Mouth crops bring their sound along.
        crop_size: side of the frames that the model takes, in pixels.

    Raises DataError for what is neither.
    """

    def __init__(
        self, recording: RecordingLike | MouthCrops | None, audio: RecordingLike | None, crop_size: int
    ) -> None:
        cropped = isinstance(recording, MouthCrops)
        if isinstance(recording, MouthCrops):
            audio = recording.samples if audio is None else audio
            recording = recording.frames
        if recording is None and audio is None:
            raise DataError("name a recording: a file, frames or samples")
        self.source = as_source(audio if recording is None else recording)  # type: ignore[arg-type]
        self.sound = None if recording is None or audio is None else as_source(audio)
        self.size = crop_size
        self._check_sound()
        self.name = name_of(self.source if recording is None else recording)
        if isinstance(self.source, Path):
            self.streams = streams_of(self.source)
        else:
            self.streams = {"audio"} if self.source.ndim == 1 else {"video"}
        if self.sound is not None:
            self.streams.add("audio")
        if cropped and self.crops is None:
            given, wanted = self.source.shape[1], crop_side(crop_size)  # type: ignore[union-attr]
            raise DataError(f"the crops have {given} pixels, the model wants av_ssl.crop(..., size={wanted})")

    def _check_sound(self) -> None:
        """Raise DataError where the sound is none, is given twice, or is not as long as the frames."""
        sound, source = self.sound, self.source
        if sound is not None and isinstance(source, np.ndarray) and source.ndim == 1:
            raise DataError("the recording is samples, so it takes no audio; give frames or a video")
        if sound is None:
            return
        if isinstance(sound, np.ndarray) and sound.ndim != 1:
            raise DataError(f"audio is frames {list(sound.shape)}; give samples [N] at 16 kHz, or a file")
        lasts = stated_seconds(source) if isinstance(source, Path) else len(source) / FRAME_RATE
        if lasts is None or (isinstance(sound, Path) and same_length(lasts, stated_seconds(sound))):
            return
        samples = read_audio(sound) if isinstance(sound, Path) else sound  # a file may state another length
        given = len(samples) / SAMPLE_RATE
        if not same_length(lasts, given):
            what = str(sound) if isinstance(sound, Path) else "these samples"
            raise DataError(
                f"{what}: {len(samples)} samples at 16 kHz last {given:.2f} s, but the recording lasts "
                f"{lasts:.2f} s; resample one of them (frames: 25 Hz), or cut the longer one"
            )

    @property
    def only_stream(self) -> str | None:
        """The stream that is given; None if there are both, or neither."""
        return next(iter(self.streams)) if len(self.streams) == 1 else None

    def clip(self, streams: Sequence[str], face: str | int, origin: str) -> ArrayClip:
        """The streams that a model takes; DataError names it, ``origin``, if one is missing."""
        for stream in streams:
            if stream not in self.streams:
                raise DataError(f"{origin} takes {' and '.join(streams)}; name a file of {stream}")
        frames = samples = None
        if "video" in streams:
            self.check_crops()
            frames = self.crops
            if frames is None:
                made = crop_recording(self.source, self.sound, face, crop_side(self.size))
                frames, samples = made.frames, made.samples
        if "audio" in streams and samples is None:
            sound = self.source if self.sound is None else self.sound
            samples = read_audio(sound) if isinstance(sound, Path) else sound
        return ArrayClip.of("clip", frames, samples, self.name)

    def check_crops(self) -> None:
        """Warn if frames that are used as they are do not show what mouth crops show."""
        if self.crops is None:
            return
        looks = [np.repeat(frame[..., None], 3, axis=2) for frame in self.crops[LOOKED_AT]]
        if looks and not are_mouth_crops(looks, FaceMesh()):
            logger.warning(
                "%s: frames of %dx%d pixels are used as they are, since the model takes this size, but no "
                "mouth is found in their middle; if they show more than the crops of the model's training, "
                "give it the frames of av_ssl.crop",
                self.name,
                *looks[0].shape[1::-1],
            )

    @cached_property
    def crops(self) -> NDArray[np.uint8] | None:
        """The frames, if they have the size of the crops that the model takes."""
        if "video" not in self.streams:
            return None
        if isinstance(self.source, Path):
            reader = VideoReader(self.source, keep_bytes=0)
            first = next(reader.frames(gray=True))
            ready = self._fits(first.shape) and abs(reader.source_fps - FRAME_RATE) < 0.01
            return read_crops(self.source) if ready else None
        return self.source if self.source.ndim == 3 and self._fits(self.source.shape[1:]) else None

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return shape[0] == shape[1] and self.size <= shape[0] <= READY * self.size


def streams_of(path: Path) -> set[str]:
    """Streams of a file; a cover image is none."""
    found = set[str]()
    with open_media(path) as container:
        if container.streams.audio:
            found.add("audio")
        if path.suffix.lower() not in AUDIO_SUFFIXES and has_film(container, path):
            found.add("video")
    return found


def windows(clip: ArrayClip) -> Iterator[tuple[ArrayClip, slice]]:
    """Parts of a long clip that overlap, and of each the frames that count."""
    if clip.frames <= WINDOW:
        yield clip, slice(None)
        return
    for start in range(0, clip.frames, WINDOW - 2 * CONTEXT):
        first = max(0, start - CONTEXT)
        last = min(clip.frames, start + WINDOW - CONTEXT)
        pixels = None if clip.pixels is None else clip.pixels[first:last]
        wave = None if clip.wave is None else clip.wave[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
        yield (
            ArrayClip.of(clip.id, pixels, wave, str(clip.video or clip.audio)),
            slice(start - first, start - first + WINDOW - 2 * CONTEXT),
        )
