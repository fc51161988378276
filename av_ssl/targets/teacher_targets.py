"""What several speech teachers make of a batch: vectors to regress, and soft clusters of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from av_ssl.data.manifest import Clip
from av_ssl.data.teacher_batch import OnlineTeacher, TeacherInput
from av_ssl.errors import DataError
from av_ssl.targets.load_teacher import load_teacher, weights_digest
from av_ssl.targets.soft_clusters import SoftClusters
from av_ssl.targets.speech_teacher import SpeechTeacher
from av_ssl.targets.stored_features import StoredFeatures, dumped_splits
from av_ssl.targets.teacher_folder import TeacherFolder

TARGET_SOURCES = ("disk", "online", "mixed")

logger = logging.getLogger(__name__)


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
        source: ``disk``: read what their folders hold; ``online``: run the teachers in the training step;
            ``mixed``: run those whose folders hold nothing.
        dtype: in which teachers run.
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
            source == "online" or (source == "mixed" and not dumped_splits(folder.path)) for folder in folders
        ]
        self.dtype = dtype
        self.clusters = [
            SoftClusters(folder.centroids(), folder.inertia, temperature) for folder in self.folders
        ]
        self.teachers: dict[int, SpeechTeacher] = {}

    def inputs(self, split: str, clips: Sequence[Clip]) -> list[TeacherInput]:
        """What the data pipeline has to know, for a data set of these clips.

        Raises:
            DataError: targets are to come from disk, and a folder lacks some of the clips.
        """
        return [
            OnlineTeacher(folder.per_frame, folder.missing)
            if online
            else StoredFeatures(folder, split, clips)
            for folder, online in zip(self.folders, self.online, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, source: Mapping[str, Any], teachers: Mapping[str, Any]) -> list[Target]:
        """Targets of a batch.

        Args:
            source: ``waveform`` int16 ``[B, 640 T]``, where teachers run online.
            teachers: see :class:`~av_ssl.data.teacher_batch.TeacherBatch`.
        """
        targets = []
        for number, (folder, index) in enumerate(zip(self.folders, teachers["index"], strict=True)):
            features = teachers["features"][number]
            if features is None:
                features = self.opened(number, source["waveform"].device)(
                    source["waveform"], teachers["lengths"]
                )
            grouped = features.reshape(-1, folder.per_frame, folder.dim)
            vectors = grouped[index].flatten(0, 1).float()
            targets.append(Target(vectors, self.clusters[number](vectors)))
        return targets

    def opened(self, number: int, device: torch.device) -> SpeechTeacher:
        """The teacher, loaded when it is first asked, on the device of the batch."""
        if number not in self.teachers:
            self.teachers[number] = self._open(self.folders[number], device)
        return self.teachers[number]

    def _open(self, folder: TeacherFolder, device: torch.device) -> SpeechTeacher:
        teacher = load_teacher(folder.spec)
        if weights_digest(teacher.model) != folder.weights:
            raise DataError(
                f"{folder.path}: its clusters are of another {folder.spec.model} than the one found now (the "
                "weights differ); make the folder again with av-ssl targets teacher"
            )
        logger.info(
            "teacher %s: layers %s, %d channels, %s",
            folder.spec.model, folder.spec.layers, teacher.dim, self.dtype,
        )  # fmt: skip
        return teacher.to(device, self.dtype)
