"""What `av-ssl targets` is asked to make, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av_ssl.targets.frame_features import FeatureSpec


@dataclass(frozen=True)
class TargetPlan:
    """What is to be made.

    Args:
        data: folder with `{split}.tsv`.
        out: folder for the labels.
        splits: the first is the one that k-means is fitted to.
        spec: the features.
        clusters: K.
        label: suffix of the label files.
        shards: of each split; None: one for every 1000 clips, at least 16.
        seed: of the draw of clips and of k-means.
        fit_share: share of the clips that k-means is fitted to.
        dtype: of stored features, `float32` or `float16`.
    """

    data: Path
    out: Path
    splits: tuple[str, ...]
    spec: FeatureSpec
    clusters: int
    label: str = "km"
    shards: int | None = None
    seed: int = 0
    fit_share: float = 0.1
    dtype: str = "float32"

    @property
    def work(self) -> Path:
        """Folder of centroids, settings and the report."""
        return self.out / f"{self.label}.clusters"

    @property
    def features(self) -> Path:
        """Folder of features."""
        return self.out / "features"

    @property
    def centroids(self) -> Path:
        """Float32 `[K, D]`."""
        return self.work / "centroids.npy"

    @property
    def dictionary(self) -> Path:
        """Ids 0 to K-1."""
        return self.out / f"dict.{self.label}.txt"

    def labels(self, split: str) -> Path:
        """A line of ids a clip."""
        return self.out / f"{split}.{self.label}"

    def manifest(self, split: str) -> Path:
        """The clips."""
        return self.data / f"{split}.tsv"

    def feature_settings(self) -> dict[str, Any]:
        """What decides the features on disk."""
        return {**self.spec.settings(), "dtype": self.dtype}
