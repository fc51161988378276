"""Self-supervised audio-visual speech models as a plugin for stock fairseq: what `--user-dir` names.

The functions here work on single files; the command `av-ssl` works on folders. Importing the package imports
neither torch nor fairseq, so that `av_ssl.media` and `av-ssl crop` run without them; fairseq imports
`av_ssl.tasks`, which registers everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from av_ssl_fairseq_hook import install as _install_fairseq_hook

__version__ = "0.1.0"

# A process that was started without the .pth file can import fairseq from here on.
_install_fairseq_hook()

# The imports inside the functions keep torch out of this module.


def load(path: str | Path) -> Any:
    """Load a model from a checkpoint, this package's or AV-HuBERT's, in eval mode, without running its code.

    Returns:
        The model; ``cfg`` is its configuration, ``task_cfg`` that of the data in its training.

    Raises:
        DataError: the file is missing, truncated, no checkpoint, of an unknown model, or lacks tensors.
    """
    import av_ssl.tasks  # noqa: F401  (registers all models)
    from av_ssl.checkpoints.loading import load as load_model

    return load_model(path)


def features(
    checkpoint: str | Path,
    video: str | Path | None = None,
    audio: str | Path | None = None,
    layers: Sequence[int] | None = None,
    modalities: str | None = None,
) -> Any:
    """Outputs of a model's layers for one clip; `av-ssl features` processes data sets.

    Args:
        checkpoint: any model of this package, AV-HuBERT's or RAVEn's, or the folder of a Hugging Face speech
            model.
        video: mouth crops at 25 Hz, as `av-ssl crop` makes them.
        audio: waveform, 16 kHz mono.
        layers: L of them, from 1; 0 is the input of the Transformer; None: all.
        modalities: `audio`, `video`, `av`; None: those of the files; if both are given, those that the model
            was trained with.

    Returns:
        float32 array `[n, L, C]`, at 25 Hz (speech models: 50 Hz).

    Raises:
        DataError: the model cannot be loaded or lacks a layer; a file is missing or cannot be read.
    """
    from av_ssl.inference import clip_features

    return clip_features(
        Path(checkpoint),
        None if video is None else Path(video),
        None if audio is None else Path(audio),
        None if layers is None else tuple(layers),
        modalities,
    )


def transcribe(
    checkpoint: str | Path,
    video: str | Path | None = None,
    audio: str | Path | None = None,
    modalities: str | None = None,
    beam: int = 20,
) -> Any:
    """Transcribe one clip with a fine-tuned recogniser; `av-ssl transcribe` processes data sets.

    Args:
        checkpoint: a recogniser of this package or AV-HuBERT's.
        video, audio, modalities: see `features`.
        beam: hypotheses kept by the search; 1 is greedy.

    Returns:
        The hypothesis, with ``text`` and ``confidence`` (0 to 1).

    Raises:
        DataError: the model cannot be loaded or is no recogniser; a file is missing or cannot be read.
    """
    from av_ssl.transcription.recogniser import transcribe_clip

    return transcribe_clip(
        Path(checkpoint),
        None if video is None else Path(video),
        None if audio is None else Path(audio),
        modalities,
        beam,
    )
