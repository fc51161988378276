"""Self-supervised audio-visual speech models as a plug-in for stock fairseq: what `--user-dir` names.

Importing it costs next to nothing: neither torch nor fairseq is imported, so that `av_ssl.media` and the
`av-ssl` command run where these are not installed.  fairseq itself imports `av_ssl.tasks` and
`av_ssl.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from av_ssl_fairseq_hook import install as _install_fairseq_hook

__version__ = "0.1.0"

# A process that was started without the .pth file can import fairseq from here on.
_install_fairseq_hook()


def load(path: str | Path) -> Any:
    """Load a model from a checkpoint, this package's or AV-HuBERT's, in eval mode, running no code from it.

    Returns:
        The model; ``cfg`` is its configuration, ``task_cfg`` the data's that it was trained on.

    Raises:
        DataError: the file is missing, cut off, no checkpoint, of a model that is unknown here, or lacks
            tensors of it.
    """
    from av_ssl.checkpoints.loading import load as load_model

    return load_model(path)


def features(
    checkpoint: str | Path,
    video: str | Path | None = None,
    audio: str | Path | None = None,
    layers: Sequence[int] | None = None,
    modalities: str | None = None,
) -> Any:
    """What the layers of a model make of one clip; `av-ssl features` does whole data sets.

    Args:
        checkpoint: any model of this package, AV-HuBERT's or RAVEn's, or the folder of a Hugging Face speech
            model.
        video: mouth crops at 25 Hz, as `av-ssl crop` makes them.
        audio: waveform, 16 kHz mono.
        layers: L of them, from 1; 0 is the input of the Transformer; None: all.
        modalities: `audio`, `video`, `av`; None: the file that is named, or of both what the model was
            trained with.

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
