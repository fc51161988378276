"""Clips with a class each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_ssl.data.collate import Extent, Sample
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.segments import Segmentation

ORDER = 2
"""Keeps the draws of an epoch's clips apart from those of clips and batches (`dataset.CLIP`, `BATCH`)."""


class ClassificationDataset(AudioVisualDataset):
    """Clips, the id of each one's class, and the segments in which an encoder sees them.

    Batches differ from epoch to epoch: they decide which clips share batch statistics.

    Args:
        classes: `[N]`, -1 where the class is unknown; None where there are no labels.
        segmentation: None for clips in one piece.
        class_balanced: in training, draw every class equally often; an epoch has as many clips as ever.
        options: see `AudioVisualDataset`.
    """

    def __init__(
        self,
        *,
        classes: NDArray[np.int64] | None,
        segmentation: Segmentation | None = None,
        class_balanced: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if classes is not None and len(classes) != len(self.clips):
            raise ValueError(f"{len(classes)} classes for {len(self.clips)} clips: give one for each")
        self.classes = np.full(len(self.clips), -1) if classes is None else classes
        self.segmentation = segmentation
        self.class_balanced = class_balanced and self.train

    def _targets(
        self, samples: Sequence[Sample], extent: Extent, net_input: dict[str, Any]
    ) -> dict[str, Any]:
        if self.segmentation is not None:
            net_input["segments"] = self.segmentation.draw_up(extent.lengths, extent.frames)
        return {"target": torch.from_numpy(self.classes[[sample.index for sample in samples]])}

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return not self.train

    def ordered_indices(self) -> NDArray[np.int64]:
        """Longest clips first by what a batch takes of them, equally long ones by chance."""
        rng = self._generator(ORDER)
        indices = self._balanced(rng) if self.class_balanced else np.arange(len(self))
        if self.shuffle:
            rng.shuffle(indices)
        return indices[np.argsort(-self.num_tokens_vec(indices), kind="stable")]

    def _balanced(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """As many clips as there are, the same number of each class (one more of some); none comes again
        before all of its class have come."""
        members = [
            np.flatnonzero(self.classes == each) for each in np.unique(self.classes[self.classes >= 0])
        ]
        if not members:
            return np.arange(len(self))
        counts = np.full(len(members), len(self) // len(members))
        counts[rng.permutation(len(members))[: len(self) % len(members)]] += 1
        drawn = []
        for clips, count in zip(members, counts, strict=True):
            rounds = [rng.permutation(clips) for _ in range(-(-count // len(clips)))]
            drawn.append(np.concatenate(rounds)[:count] if rounds else clips[:0])
        return np.concatenate(drawn)
