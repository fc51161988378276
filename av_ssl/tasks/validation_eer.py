"""Equal error rate of a speaker model over pairs of validation clips."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from numpy.typing import NDArray

from av_ssl.data.labels import LabelFile
from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError
from av_ssl.evaluation.score_norm import unit_length
from av_ssl.evaluation.verification import equal_error_rate

logger = logging.getLogger(__name__)

METRIC = "eer"
MOST_CLIPS = 3000
"""The pairs of more would take longer to sort than they are worth; so many are taken, of all speakers."""


class ValidationEER:
    """Gathers embeddings while fairseq validates, and writes the rate into its statistics.

    fairseq looks for the metric by which it chooses checkpoints before it lets a task add one, so that a
    place is kept for it from the first batch on.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.embeddings: dict[str, NDArray[np.float32]] = {}
        self.validating = False

    def read_names(self, path: Path, clips: Sequence[Clip]) -> None:
        """Who speaks in each clip, by its label file; speakers need not be known from training."""
        labels = LabelFile(path, clips)
        self.names.update({clip.id: labels.line(number) for number, clip in enumerate(clips)})

    def clear(self) -> None:
        self.embeddings = {}

    def add(self, sample: dict[str, Any], model: Any) -> None:
        """Embed a batch; batches come twice where a worker has run out of them."""
        self.validating = True
        if not sample:
            return
        embeddings = model.embed(**sample["net_input"]).cpu().numpy()
        self.embeddings.update(zip(sample["utt_id"], embeddings, strict=True))

    def log_placeholder(self) -> None:
        """Keep a place among the metrics of a validation, none among those of training."""
        if self.validating:
            metrics.log_scalar(METRIC, 100.0, priority=10, round=3)
        self.validating = False

    def write(self, stats: dict[str, Any]) -> None:
        """Put the rate (%) of the clips gathered since the last call into ``stats``, alike on all workers.

        Raises:
            DataError: all clips are of one speaker, or no two of one.
        """
        embeddings = all_workers(self.embeddings)
        self.clear()
        if not embeddings:
            return
        stats[METRIC] = round(100 * self.rate(embeddings), 3)
        if f"best_{METRIC}" in stats:
            stats[f"best_{METRIC}"] = min(checkpoint_utils.save_checkpoint.best, stats[METRIC])

    def rate(self, embeddings: dict[str, NDArray[np.float32]]) -> float:
        ids = spread_over_speakers({name: self.names[name] for name in embeddings}, MOST_CLIPS)
        if len(ids) < len(embeddings):
            logger.info("EER of %d of %d validation clips, of all speakers", len(ids), len(embeddings))
        unit = unit_length(np.stack([embeddings[name] for name in ids]))
        first, second = np.triu_indices(len(ids), k=1)
        speakers = np.unique([self.names[name] for name in ids], return_inverse=True)[1]
        same = speakers[first] == speakers[second]
        if same.all() or not same.any():
            raise DataError(
                f"task.eer=true: the {len(ids)} validation clips are of {speakers.max() + 1} speakers; an "
                "error rate needs several clips of several speakers"
            )
        return equal_error_rate((unit @ unit.T)[first, second], same)


def spread_over_speakers(speakers: Mapping[str, str], most: int) -> list[str]:
    """Up to `most` clips in alphabetical order, of every speaker as many as of others where there are enough.

    Args:
        speakers: who speaks in each clip.
        most: clips; the same ones in every call.
    """
    shuffled = sorted(speakers)
    random.Random(0).shuffle(shuffled)
    turns: Counter[str] = Counter()
    turn: dict[str, int] = {}
    for name in shuffled:
        turn[name] = turns[speakers[name]]
        turns[speakers[name]] += 1
    return sorted(sorted(shuffled, key=turn.__getitem__)[:most])


def all_workers(embeddings: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The embeddings of all distributed workers together."""
    if not (dist.is_available() and dist.is_initialized()):
        return embeddings
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, embeddings)
    together: dict[str, NDArray[np.float32]] = {}
    for part in gathered:
        together.update(part)
    return together
