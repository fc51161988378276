"""Folders of teachers that never existed: random clusters, and random targets of the clips asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DIM, CLUSTERS = 6, 10


def write_teacher_folder(
    folder: Path,
    clips: Mapping[str, Mapping[str, int]] | None = None,
    missing: int = 1,
    per_frame: int = 2,
    dim: int = DIM,
    seed: int = 0,
) -> Path:
    """A teacher's folder.

    Args:
        clips: for each split the clips' ids and video frames.
        missing: targets that a clip has fewer than `per_frame` a frame.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sizes = {"weights": "0" * 64, "dim": dim, "per_frame": per_frame, "missing": missing}
    teacher = {"model": "none", "layers": "1", "norm": "instance", "combine": "average"}
    (folder / "teacher.json").write_text(json.dumps({"teacher": teacher, **sizes}))
    (folder / "clusters.json").write_text(json.dumps({"clusters": CLUSTERS, "inertia": 2.5, "seed": 0}))
    np.save(folder / "centroids.npy", rng.standard_normal((CLUSTERS, dim)).astype(np.float32))
    for split, frames in (clips or {}).items():
        lengths = [per_frame * count - missing for count in frames.values()]
        targets = rng.standard_normal((sum(lengths), dim)).astype(np.float16)
        half = (len(lengths) + 1) // 2
        for rank, part in enumerate((slice(0, half), slice(half, None))):
            start = sum(lengths[: part.start])
            stem = folder / f"{split}_{rank}_2"
            np.save(f"{stem}.npy", targets[start : start + sum(lengths[part])])
            stem.with_name(stem.name + ".len").write_text("".join(f"{n}\n" for n in lengths[part]))
        (folder / f"{split}.ids").write_text("".join(f"{name}\n" for name in frames))
    return folder
