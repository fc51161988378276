"""Embeddings on disk, so that the same clips are not embedded twice for two trial lists."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.files import atomic_file

Embeddings = dict[str, NDArray[np.float32]]


class EmbeddingCache:
    """A folder of `NAME.HASH.npz` files; the hash is of all that the embeddings depend on.

    Args:
        folder: made when it is needed.
        settings: what they depend on besides the clips, such as the digest of the checkpoint.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)

    def get(self, name: str, clips: Sequence[str], compute: Callable[[], Embeddings]) -> Embeddings:
        """The embeddings of the clips (whatever identifies them) from the file, or computed and kept."""
        key = hashlib.sha256(json.dumps([self.settings, list(clips)], sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{name}.{key[:16]}.npz"
        kept = read_embeddings(path)
        if kept is None:
            kept = compute()
            write_embeddings(path, kept)
        return kept


def state(path: Path | None) -> str:
    """A file as it is now: path, bytes, time of its last change (ns); a recording may be made anew."""
    if path is None:
        return "-"
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def read_embeddings(path: Path) -> Embeddings | None:
    """What `write_embeddings` wrote; None when the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(file["ids"].tolist(), file["embeddings"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write `ids` `[N]` and `embeddings` float32 `[N, D]`; raises MediaError when that cannot be done."""
    with atomic_file(path) as file:
        np.savez(file, ids=np.array(list(embeddings)), embeddings=np.stack(list(embeddings.values())))
