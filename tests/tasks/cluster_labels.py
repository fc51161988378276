"""Random cluster labels for the small data folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLUSTERS = 10


def write_labels(data: Path, folder: Path, label: str, rate: int, clusters: int = CLUSTERS) -> None:
    """Random cluster ids, as long as the clips, and their dictionary."""
    rng = np.random.default_rng(int(rate))
    for split in ("train", "valid"):
        lines = (data / f"{split}.tsv").read_text().splitlines()[1:]
        counts = [int(line.split("\t")[3]) * rate // 25 for line in lines]
        text = "".join(" ".join(map(str, rng.integers(0, clusters, count))) + "\n" for count in counts)
        (folder / f"{split}.{label}").write_text(text)
    (folder / f"dict.{label}.txt").write_text("".join(f"{cluster} 1\n" for cluster in range(clusters)))
