"""Frames of a feature folder with what is said in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.analysis.alignments import Alignment, Visemes, read_alignment
from av_ssl.analysis.feature_folder import FeatureFolder, Floats
from av_ssl.errors import DataError

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class LabelledFrames:
    """Frames that a phone, and where asked for a viseme, is known of.

    Attributes:
        features: `[N, L, C]`.
        labels: by kind, `phone` and `viseme`: strings `[N]`.
        speakers: strings `[N]`; the clip where the speaker is unknown.
    """

    features: Floats
    labels: dict[str, Strings]
    speakers: Strings

    def __len__(self) -> int:
        return len(self.features)

    def drawn(self, count: int | None, seed: int) -> LabelledFrames:
        """So many at random, in order; all where there are fewer, or for None."""
        if count is None or count >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))
        labels = {kind: values[rows] for kind, values in self.labels.items()}
        return LabelledFrames(self.features[rows], labels, self.speakers[rows])


def labelled_frames(
    folder: FeatureFolder,
    alignments: Path,
    visemes: Visemes | None = None,
    clips: Sequence[str] | None = None,
) -> LabelledFrames:
    """Frames of a folder's clips in which something is said.

    Args:
        folder: the features.
        alignments: folder with `{id}.json` of each clip.
        visemes: by phone; None: phones alone.
        clips: ids; None: all.  Folders that are compared get the clips that all of them have.

    Raises DataError when an alignment is missing, a phone lacks its viseme, or no frame has a label.
    """
    features, speakers = [], []
    labels: dict[str, list[str]] = {"phone": []} if visemes is None else {"phone": [], "viseme": []}
    for clip in folder.clips if clips is None else clips:
        alignment = read_alignment(alignments / f"{clip}.json")
        found = _labels(alignment, folder.times(clip), visemes)
        known = np.array([None not in row for row in zip(*found.values(), strict=True)], bool)
        features.append(np.asarray(folder.features(clip)[known]))
        for kind, values in found.items():
            labels[kind] += [value for value, here in zip(values, known, strict=True) if here and value]
        speakers += [alignment.speaker or clip] * int(known.sum())
    if not speakers:
        raise DataError(f"{folder.path}: no frame of it has a phone in {alignments}")
    arrays = {kind: np.array(values) for kind, values in labels.items()}
    return LabelledFrames(np.concatenate(features), arrays, np.array(speakers))


def shared_clips(folders: Sequence[FeatureFolder]) -> list[str]:
    """Ids of the clips that all folders have; raises DataError when there are none."""
    first, *others = folders
    clips = [clip for clip in first.clips if all(clip in other.clips for other in others)]
    if not clips:
        raise DataError(f"{', '.join(str(folder.path) for folder in folders)}: have no clip in common")
    return clips


def _labels(
    alignment: Alignment, times: NDArray[np.float32], visemes: Visemes | None
) -> dict[str, list[str | None]]:
    labels = {"phone": alignment.phones_at(times)}
    if visemes is not None:
        labels["viseme"] = alignment.visemes_at(times, visemes)
    return labels
