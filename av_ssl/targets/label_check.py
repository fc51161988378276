"""Finished label files against manifest and dictionary, and how the clusters are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.bad_clips import TOLERATED_SHARE
from av_ssl.data.labels import FrameLabels
from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError

NAMED_IN_ERROR = 20


@dataclass(frozen=True)
class LabelUsage:
    """What a label file holds.

    Args:
        clips: lines.
        unlabelled: ids of clips without labels.
        disagreeing: ids of clips whose labels last 0.1 s or more longer or shorter than the clip, those
            without labels among them.
        counts: frames of each cluster `[K]`.
    """

    clips: int
    unlabelled: list[str]
    disagreeing: list[str]
    counts: NDArray[np.int64]

    @property
    def frames(self) -> int:
        """Labels in all."""
        return int(self.counts.sum())

    @property
    def unused(self) -> int:
        """Clusters that do not occur."""
        return int((self.counts == 0).sum())

    @property
    def entropy(self) -> float:
        """Of the clusters' frequencies, in bits; at most log2 K."""
        shares = self.counts[self.counts > 0] / max(1, self.frames)
        return float(-(shares * np.log2(shares)).sum()) + 0.0

    @property
    def perplexity(self) -> float:
        """Number of equally frequent clusters that would have this entropy."""
        return float(2**self.entropy)

    @property
    def largest_share(self) -> float:
        """Frequency of the most frequent cluster."""
        return float(self.counts.max(initial=0) / max(1, self.frames))

    def report(self, rate: int, inertia: float) -> dict[str, Any]:
        """The numbers for people; `rate` in labels/s, `inertia`: mean squared distance to the centroid."""
        return {
            "clips": self.clips,
            "labels": self.frames,
            "labels_a_second": rate,
            "hours": self.frames / rate / 3600,
            "clips_without_labels": self.unlabelled,
            "clips_of_other_length": self.disagreeing,
            "clusters": len(self.counts),
            "clusters_unused": self.unused,
            "entropy_bits": self.entropy,
            "perplexity": self.perplexity,
            "largest_share": self.largest_share,
            "inertia_a_frame": inertia,
        }


def check_labels(path: Path, dictionary: Path, clips: Sequence[Clip], rate: int, clusters: int) -> LabelUsage:
    """Read a label file as training does, and all of it.

    Args:
        path: `{split}.km`.
        dictionary: `dict.km.txt`.
        clips: of the manifest.
        rate: labels a second.
        clusters: K.

    Raises DataError when the number of lines is not that of clips, an id is not one of 0 to K-1 or not in the
    dictionary, or more than 1 % of the clips (and more than one) have labels that do not last as long.
    """
    labels = FrameLabels.load(path, dictionary, clips, rate)
    if labels.dictionary.symbols[labels.dictionary.nspecial :] != [str(k) for k in range(clusters)]:
        raise DataError(f"{dictionary}: does not list the ids 0 to {clusters - 1} in order; make it again")
    counts = np.zeros(clusters, np.int64)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            counts += _count(path, number, line, clusters)
    lengths, agrees = labels.file.symbol_counts, labels.agrees(clips)
    disagreeing = [clip.id for clip, fits in zip(clips, agrees, strict=True) if not fits]
    if len(disagreeing) > max(1, int(TOLERATED_SHARE * len(clips))):
        first = next(index for index, fits in enumerate(agrees) if not fits)
        raise DataError(
            f"{path}: labels and clip differ by 0.1 s or more in {len(disagreeing)} of {len(clips)} clips; "
            f"{clips[first].id} has {clips[first].frames} frames at 25 Hz in the manifest (line "
            f"{clips[first].line}) and {lengths[first]} labels at {rate} Hz. Mend the manifest's counts or "
            "the files: " + ", ".join(disagreeing[:NAMED_IN_ERROR])
        )
    unlabelled = [clip.id for clip, length in zip(clips, lengths, strict=True) if not length]
    return LabelUsage(len(clips), unlabelled, disagreeing, counts)


def _count(path: Path, number: int, line: bytes, clusters: int) -> NDArray[np.int64]:
    try:
        ids = np.array(line.split(), np.int64)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: holds something else than cluster ids ({error})") from error
    if len(ids) and not 0 <= ids.min() <= ids.max() < clusters:
        raise DataError(
            f"{path}, line {number}: holds cluster {ids[(ids < 0) | (ids >= clusters)][0]}, ids are 0 to "
            f"{clusters - 1}; make the labels again"
        )
    return np.bincount(ids, minlength=clusters)
