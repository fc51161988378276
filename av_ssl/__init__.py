"""Self-supervised audio-visual speech models as a plugin for stock fairseq: what `--user-dir` names.

The functions here work on single recordings; the command `av-ssl` works on folders. Importing the package
imports neither torch nor fairseq, so that `av_ssl.media` and `av-ssl crop` run without them; fairseq imports
`av_ssl.tasks`, which registers everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from av_ssl_fairseq_hook import install as _install_fairseq_hook

__version__ = "0.1.0"

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from av_ssl.media.recording import MouthCrops, RecordingLike
    from av_ssl.model import Model
    from av_ssl.transcription.transcript import Transcript

# A process that was started without the .pth file can import fairseq from here on.
_install_fairseq_hook()

# The imports inside the functions keep torch out of this module.


def load(path: str | Path, device: str = "auto") -> Model:
    """Load a model from a checkpoint, this package's or AV-HuBERT's, without running its code.

    Args:
        path: ``.pt`` or ``.safetensors``.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``, for recordings.

    Returns:
        The model: `Model.transcribe` and `Model.features` take recordings. ``module`` is the torch module, in
        eval mode; its attributes can be read from the model, too, such as ``cfg``, its configuration, and
        ``task_cfg``, that of the data in its training.

    Raises:
        DataError: the file is missing, truncated, no checkpoint, of an unknown model, or lacks tensors.
    """
    from av_ssl.model import Model

    return Model(path, device)


def from_pretrained(name: str | Path, revision: str | None = None, device: str = "auto") -> Model:
    """Load a model from a folder of `Model.save_pretrained`, or a repository of a hub; runs no code from it.

    Args:
        name: a folder, or else ``OWNER/NAME`` at the Hugging Face hub, which is downloaded.
        revision: branch, tag or commit of a repository.
        device: see `load`.

    Raises:
        DataError: there is neither; a file is missing or damaged; huggingface_hub is missing.
    """
    from av_ssl.model import Model

    return Model.from_pretrained(name, revision, device)


def features(
    model: Model | str | Path,
    recording: RecordingLike | MouthCrops | None = None,
    audio: RecordingLike | None = None,
    layers: Sequence[int] | None = None,
    modalities: str | None = None,
    *,
    video: RecordingLike | None = None,
    face: str | int = "speaker",
) -> NDArray[np.float32]:
    """Outputs of a model's layers for one recording; `av-ssl features` processes data sets.

    Args:
        model: from `load`; or its file, any of this package, AV-HuBERT's or RAVEn's, or the folder of a
            Hugging Face speech model.
        recording: a file of any size and rate: a video, of which the speaker's mouth is cropped, a file of
            mouth crops, or sound. Or an array: frames uint8 `[T, H, W]` (gray) or `[T, H, W, 3]` (RGB) at
            25 Hz, or samples `[N]` at 16 kHz, int16, or floating-point from -1 to 1. Or what `crop` returns.
        audio: sound that is not in the recording, a file or samples.
        layers: L of them, from 1; 0 is the input of the Transformer; None: all.
        modalities: `audio`, `video`, `av`; None: those of the recording; if it has both, those that the model
            was trained with.
        video: another name of `recording`.
        face: the one that is cropped: `speaker` (whose mouth moves with the sound), `left`, `right`,
            `largest`, or its number from 1.

    Returns:
        float32 array `[n, L, C]`, at 25 Hz (speech models: 50 Hz).

    Raises:
        DataError: the model cannot be loaded or lacks a layer; the recording cannot be read, lacks a stream
            that the model takes, or shows neither a face nor mouth crops.
    """
    from av_ssl.model import features_of

    return features_of(model, video if recording is None else recording, audio, layers, modalities, face)


def transcribe(
    model: Model | str | Path,
    recording: RecordingLike | MouthCrops | None = None,
    audio: RecordingLike | None = None,
    modalities: str | None = None,
    beam: int = 20,
    *,
    video: RecordingLike | None = None,
    word_timestamps: bool = False,
    face: str | int = "speaker",
) -> Transcript:
    """Transcribe one recording with a fine-tuned recogniser; `av-ssl transcribe` processes many.

    Args:
        model: from `load`, or its file: a recogniser of this package or AV-HuBERT's.
        recording, audio, video, face: see `features`.
        modalities: `audio`, `video`, `av`; None: those of the recording; if it has both, those that the model
            was trained with.
        beam: hypotheses kept by the search; 1 is greedy.
        word_timestamps: give each word its start and end in seconds, and a score from 0 to 1.

    Returns:
        The transcript: ``text``, ``confidence`` (0 to 1), ``segments`` and ``notes`` on what went otherwise.

    Raises:
        DataError: the model cannot be loaded or is no recogniser; or as `features`.
    """
    from av_ssl.model import opened

    recording = video if recording is None else recording
    return opened(model).transcribe(recording, audio, word_timestamps, face, modalities, beam)


def crop(recording: RecordingLike, face: str | int = "speaker", size: int = 96) -> MouthCrops:
    """Crop the speaker's mouth out of one recording; `av-ssl crop` processes folders.

    Args:
        recording, face: see `features`.
        size: side S of the crops, in pixels.

    Returns:
        ``frames`` uint8 `[T, S, S]` at 25 Hz, gray; ``samples`` int16 `[640 T]` at 16 kHz, or None without
        sound; and ``seen`` bool `[T]`, whether the face was seen.

    Raises:
        DataError: the recording cannot be read, or no face is seen in it.
    """
    from av_ssl.media.recording import crop_recording

    return crop_recording(recording, None, face, size)
