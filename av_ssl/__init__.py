"""Self-supervised audio-visual speech models as a plug-in for stock fairseq: what `--user-dir` names.

Importing it costs next to nothing: neither torch nor fairseq is imported, so that `av_ssl.media` and the
`av-ssl` command run where these are not installed.  fairseq itself imports `av_ssl.tasks` and
`av_ssl.models`.
"""

from __future__ import annotations

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
    from av_ssl.models.loading import load as load_model

    return load_model(path)
