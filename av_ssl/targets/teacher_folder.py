"""A teacher on disk: what it is, its clusters and, where they were dumped, its targets.

    FOLDER/teacher.json                     checkpoint, layers, normalisation; dimensions; digest of weights
    FOLDER/centroids.npy  clusters.json     float32 [K, D]; K, inertia, what they were fitted to
    FOLDER/{split}_{rank}_{count}.npy       float16 [N, D], the clips of a shard one after another
    FOLDER/{split}_{rank}_{count}.len       targets of each clip; .sha256: of the .npy file, for sha256sum -c
    FOLDER/{split}.ids  {split}.json        ids of the clips in this order; what the split was made of

`av-ssl targets teacher` makes it, and training needs nothing else to know about a teacher.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av_ssl.errors import DataError
from av_ssl.targets.codebook import Centroids, read_centroids
from av_ssl.targets.teacher_spec import TeacherSpec

SETTINGS, CLUSTERS, CENTROIDS = "teacher.json", "clusters.json", "centroids.npy"


@dataclass(frozen=True)
class TeacherFolder:
    """What training reads of a teacher's folder.

    Attributes:
        path: of the folder.
        spec: checkpoint, layers, normalisation.
        weights: digest of the checkpoint's values.
        dim: channels of a target.
        per_frame: targets a video frame.
        missing: targets that a clip of T frames has fewer than ``per_frame`` T.
        clusters: K.
        inertia: mean squared distance of a target to its nearest centroid.
    """

    path: Path
    spec: TeacherSpec
    weights: str
    dim: int
    per_frame: int
    missing: int
    clusters: int
    inertia: float

    @classmethod
    def read(cls, path: str | Path) -> TeacherFolder:
        """Read the folder's descriptions.

        Raises:
            DataError: they are missing or damaged.
        """
        path = Path(path)
        teacher, clusters = (_read_json(path / name) for name in (SETTINGS, CLUSTERS))
        try:
            return cls(
                path,
                TeacherSpec(**teacher["teacher"]),
                *(teacher[key] for key in ("weights", "dim", "per_frame", "missing")),
                *(clusters[key] for key in ("clusters", "inertia")),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: {SETTINGS} or {CLUSTERS} lacks {error}; make the folder again"
            ) from error

    def centroids(self) -> Centroids:
        """Float32 ``[K, D]``; raises DataError where the file is damaged or of another shape."""
        points = read_centroids(self.path / CENTROIDS)
        if points.shape != (self.clusters, self.dim):
            raise DataError(
                f"{self.path / CENTROIDS}: is of shape {points.shape}, {CLUSTERS} and {SETTINGS} say "
                f"({self.clusters}, {self.dim}); delete {CENTROIDS} and {CLUSTERS}, and the command that "
                "made them fits anew"
            )
        return points

    def shape(self) -> dict[str, Any]:
        """What decides the shapes of a student's heads, and ``targets``: a digest of what decides what these
        learn, by which a head of another training is known to be for the same teacher."""
        made = {**self.spec.settings(), "model": None, "weights": self.weights}
        content = json.dumps(made, sort_keys=True).encode() + self.centroids().tobytes()
        return {
            "dim": self.dim,
            "per_frame": self.per_frame,
            "clusters": self.clusters,
            "targets": hashlib.sha256(content).hexdigest(),
        }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); `av-ssl targets teacher` makes such folders"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: is damaged ({error}); make the folder again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is damaged; make the folder again")
    return content
