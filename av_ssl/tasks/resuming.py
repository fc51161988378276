"""Whether a training that is resumed still has the same data; what changes with the number of GPUs."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np
from fairseq.data.iterators import EpochBatchIterator

from av_ssl.data.classes import ClassificationDataset
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.errors import DataError
from av_ssl.io import digest

logger = logging.getLogger(__name__)


def data_digest(dataset: AudioVisualDataset, more: str = "") -> str:
    """SHA-256 of the clips of a data set (ids and frames, not folders), of their labels, and of ``more``."""
    found = hashlib.sha256(more.encode())
    for clip in dataset.clips:
        found.update(f"{clip.id}\t{clip.frames}\n".encode())
    for labels in [dataset.text] if dataset.text is not None else dataset.frame_labels:
        found.update(digest(labels.file.path).encode())
        found.update(labels.lines.tobytes())
    if isinstance(dataset, ClassificationDataset) and dataset.classes is not None:
        found.update(np.asarray(dataset.classes).tobytes())
    return found.hexdigest()


class ResumableEpochs:
    """fairseq's iterator over epochs; its state also holds what the data is, and how it is divided."""

    def __init__(self, epochs: EpochBatchIterator, data: str) -> None:
        self._epochs = epochs
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epochs, name)

    def __len__(self) -> int:
        return len(self._epochs)

    def state_dict(self) -> dict[str, Any]:
        division = {"batches": len(self._epochs.frozen_batches), "shards": self._epochs.num_shards}
        return {**self._epochs.state_dict(), "data": self._data, **division}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the place of a checkpoint; DataError if it was trained on other data."""
        if state.get("data", self._data) != self._data:
            raise DataError(
                "task.data: the checkpoint was trained on other clips, labels or teachers than now: "
                "restore them, or set checkpoint.reset_dataloader=true to begin the new ones at epoch 1"
            )
        batches, shards = len(self._epochs.frozen_batches), self._epochs.num_shards
        before = state.get("batches", batches), state.get("shards", shards)
        place = state.get("iterations_in_epoch", 0)
        if before != (batches, shards):
            place = min(place * before[1] * batches // (before[0] * shards), max(0, len(self) - 1))
            logger.warning(
                "the checkpoint was trained with %d batches an epoch on %d GPUs, this run has %d on %d: "
                "this epoch continues at the same share of batches; some clips may come twice or not at all",
                *before, batches, shards,
            )  # fmt: skip
        self._epochs.load_state_dict({**state, "iterations_in_epoch": place})
