"""Targets of speech teachers in training: read from their folders, or computed by teachers that run online.

    FOLDER/teacher.json                     checkpoint, layers, normalisation; dimensions; digest of weights
    FOLDER/centroids.npy  clusters.json     float32 [K, D]; K, inertia, what they were fitted to
    FOLDER/positions.npy                    float32 [P, D], subtracted with --remove-position
    FOLDER/{split}_{rank}_{count}.npy       float16 [N, D], the clips of a shard one after another
    FOLDER/{split}_{rank}_{count}.len       targets of each clip; .sha256: of the .npy file, for sha256sum -c
    FOLDER/{split}.ids  {split}.json        ids of the clips in this order; what the split was made of

``av-ssl targets teacher`` makes the folder, and training needs nothing else to know about a teacher.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.teacher_batch import OnlineTeacher, StoredFrames, TeacherInput
from av_ssl.errors import DataError
from av_ssl.io import read_json, read_text
from av_ssl.manifest import Clip
from av_ssl.targets.clusters import Centroids, SoftClusters, read_centroids
from av_ssl.targets.feature_shards import FeatureShard
from av_ssl.targets.speech_teacher import SpeechTeacher, TeacherSpec, load_teacher

logger = logging.getLogger(__name__)

SETTINGS, CLUSTERS, CENTROIDS = "teacher.json", "clusters.json", "centroids.npy"
POSITIONS = "positions.npy"
TARGET_SOURCES = ("disk", "online", "mixed")
NAMED_IN_ERROR = 5


@dataclass(frozen=True)
class TeacherFolder:
    """The description of a teacher's folder.

    Attributes:
        path: of the folder.
        spec: checkpoint, layers, normalisation.
        weights: digest of the checkpoint's values.
        dim: channels of a target.
        per_frame: targets a video frame, r.
        missing: a clip of T frames has r T - missing targets.
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
        path = Path(path)
        fix = "make the folder with `av-ssl targets teacher`"
        teacher, clusters = (read_json(path / name, fix) for name in (SETTINGS, CLUSTERS))
        try:
            spec = dict(teacher["teacher"])
            if "positions" in spec:
                spec["positions"] = path / POSITIONS
            return cls(
                path,
                TeacherSpec(**spec),
                *(teacher[key] for key in ("weights", "dim", "per_frame", "missing")),
                *(clusters[key] for key in ("clusters", "inertia")),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: {SETTINGS} or {CLUSTERS} lacks {error}; make the folder again"
            ) from error

    def centroids(self) -> Centroids:
        points = read_centroids(self.path / CENTROIDS)
        if points.shape != (self.clusters, self.dim):
            raise DataError(
                f"{self.path / CENTROIDS}: has shape {points.shape}, {CLUSTERS} and {SETTINGS} say "
                f"({self.clusters}, {self.dim}); delete {CENTROIDS} and {CLUSTERS}, and run the command that "
                "made them again"
            )
        return points

    def shape(self) -> dict[str, Any]:
        """What decides the shapes of a student's heads.

        ``targets`` is a digest of what decides what the heads learn: it shows whether a head of another
        training is for the same teacher.
        """
        made = {**self.spec.recipe(), "model": None, "weights": self.weights}
        content = json.dumps(made, sort_keys=True).encode() + self.centroids().tobytes()
        return {
            "dim": self.dim,
            "per_frame": self.per_frame,
            "clusters": self.clusters,
            "targets": hashlib.sha256(content).hexdigest(),
        }

    def dumped_splits(self) -> dict[str, int]:
        """Splits whose targets are complete, and their numbers of shards."""
        counts: dict[str, int] = {}
        for ids in sorted(self.path.glob("*.ids")):
            pattern = re.compile(re.escape(ids.stem) + r"_(\d+)_(\d+)\.len")
            found = [match for path in self.path.glob("*.len") if (match := pattern.fullmatch(path.name))]
            if found and len(found) == int(found[0][2]):
                counts[ids.stem] = len(found)
        return counts


class StoredFeatures:
    """Stored targets of the clips of a data set, found by id in any split of the folder.

    If an id occurs in several splits, ``split`` is preferred. DataError if the folder lacks some of the
    clips.
    """

    def __init__(self, folder: TeacherFolder, split: str, clips: Sequence[Clip]) -> None:
        self.per_frame = folder.per_frame
        self.shards: list[FeatureShard] = []
        self.mapped: dict[int, StoredFrames] = {}
        places = {clip.id: number for number, clip in enumerate(clips)}
        self.shard_of: NDArray[np.int64] = np.full(len(clips), -1)
        self.starts, self.lengths = np.zeros_like(self.shard_of), np.zeros_like(self.shard_of)
        dumped = folder.dumped_splits()
        for name, count in sorted(dumped.items(), key=lambda item: item[0] == split):
            self._find(folder.path, name, count, places)
        missing = [clip.id for clip, shard in zip(clips, self.shard_of, strict=True) if shard < 0]
        if missing:
            raise DataError(
                f"{folder.path}: holds no targets of {len(missing)} of {len(clips)} clips of {split}: "
                f"{', '.join(missing[:NAMED_IN_ERROR])}; it has the splits {', '.join(dumped) or 'none'}. "
                "Store them with av-ssl targets teacher, or let the teacher run in training: "
                "model.teacher_source=online"
            )

    def _find(self, folder: Path, split: str, count: int, places: Mapping[str, int]) -> None:
        ids = read_text(folder / f"{split}.ids", "store the targets again").splitlines()
        for rank in range(count):
            shard = FeatureShard(folder, split, rank, count)
            lengths = shard.read_lengths()
            own = ids[shard.range(len(ids))]
            if len(own) != len(lengths):
                raise DataError(f"{shard.lengths}: has {len(lengths)} lines for {len(own)} clips; delete it")
            starts = np.cumsum(lengths) - lengths
            for clip, start, length in zip(own, starts, lengths, strict=True):
                if (place := places.get(clip)) is not None:
                    self.shard_of[place] = len(self.shards)
                    self.starts[place], self.lengths[place] = start, length
            self.shards.append(shard)

    def read(self, index: int) -> StoredFrames:
        """Targets float16 ``[n, D]``, memory-mapped: the parts that a batch leaves out are not read."""
        number = int(self.shard_of[index])
        if number not in self.mapped:  # in the worker that reads it
            self.mapped[number] = self.shards[number].read()[0]
        start = self.starts[index]
        return self.mapped[number][start : start + self.lengths[index]]

    def available(self, stored: StoredFrames | None, start: int, length: int) -> int:
        """Number of targets of ``length`` video frames from frame ``start`` on."""
        assert stored is not None
        return max(0, min(self.per_frame * length, len(stored) - self.per_frame * start))


class Target(NamedTuple):
    """Targets of the N frames of one teacher that count, r each, in order."""

    vectors: Tensor
    """Float32 ``[r N, D]``."""
    posteriors: Tensor
    """Float32 ``[r N, K]``."""


class TeacherTargets:
    """An ensemble of teachers, each with its own targets; nothing of it is a parameter or in a checkpoint.

    Args:
        folders: of the teachers.
        source: ``disk``: read the targets from the folders; ``online``: run the teachers in the training
            step; ``mixed``: run those whose folders hold no targets.
        dtype: of teachers that run.
        temperature: of soft clusters.
    """

    def __init__(
        self,
        folders: Sequence[TeacherFolder],
        source: str = "disk",
        dtype: torch.dtype = torch.bfloat16,
        temperature: float = 0.1,
    ) -> None:
        self.folders = list(folders)
        self.online = [
            source == "online" or (source == "mixed" and not folder.dumped_splits()) for folder in folders
        ]
        self.dtype = dtype
        self.clusters = [
            SoftClusters(folder.centroids(), folder.inertia, temperature) for folder in self.folders
        ]
        self.teachers: dict[int, SpeechTeacher] = {}

    def inputs(self, split: str, clips: Sequence[Clip]) -> list[TeacherInput]:
        return [
            OnlineTeacher(folder.per_frame, folder.missing)
            if online
            else StoredFeatures(folder, split, clips)
            for folder, online in zip(self.folders, self.online, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, source: Mapping[str, Any], teachers: Mapping[str, Any]) -> list[Target]:
        """Targets of a batch: ``source`` has ``waveform`` int16 ``[B, 640 T]`` where teachers run online, and
        ``teachers`` is a :class:`~av_ssl.data.teacher_batch.TeacherBatch`.
        """
        targets = []
        for number, (folder, index) in enumerate(zip(self.folders, teachers["index"], strict=True)):
            features = teachers["features"][number]
            if features is None:
                teacher = self.opened(number, source["waveform"].device)
                features = teacher(source["waveform"], teachers["lengths"])
            grouped = features.reshape(-1, folder.per_frame, folder.dim)
            vectors = grouped[index].flatten(0, 1).float()
            targets.append(Target(vectors, self.clusters[number](vectors)))
        return targets

    def opened(self, number: int, device: torch.device) -> SpeechTeacher:
        """A teacher, loaded at its first use, on the device of the batch; DataError if it is another model
        than that of its folder.
        """
        if number not in self.teachers:
            folder = self.folders[number]
            teacher = load_teacher(folder.spec)
            if teacher.weights != folder.weights:
                raise DataError(
                    f"{folder.path}: its clusters are of another {folder.spec.model} than the one found now "
                    "(the weights differ); make the folder again with av-ssl targets teacher"
                )
            logger.info(
                "teacher %s: layers %s, %d channels, %s",
                folder.spec.model, folder.spec.layers, teacher.dim, self.dtype,
            )  # fmt: skip
            self.teachers[number] = teacher.to(device, self.dtype)
        return self.teachers[number]
