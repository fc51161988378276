"""Targets that a teacher's folder holds, for the clips of a data set: mapped from the files, found by id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.manifest import Clip
from av_ssl.data.teacher_batch import StoredFrames
from av_ssl.errors import DataError
from av_ssl.targets.feature_shards import FeatureShard, shards_of
from av_ssl.targets.teacher_folder import TeacherFolder

NAMED_IN_ERROR = 5


class StoredFeatures:
    """Targets of clips, wherever in the folder they are: the data set may be a part of what was dumped.

    Args:
        folder: the teacher's.
        split: preferred, should an id occur in several.
        clips: of the data set.

    Raises:
        DataError: the folder lacks some of the clips, or a file of it.
    """

    def __init__(self, folder: TeacherFolder, split: str, clips: Sequence[Clip]) -> None:
        self.per_frame = folder.per_frame
        self.shards: list[FeatureShard] = []
        self.mapped: dict[int, StoredFrames] = {}
        places = {clip.id: number for number, clip in enumerate(clips)}
        self.shard_of: NDArray[np.int64] = np.full(len(clips), -1)
        self.starts, self.lengths = np.zeros_like(self.shard_of), np.zeros_like(self.shard_of)
        dumped = dumped_splits(folder.path)
        for name, count in sorted(dumped.items(), key=lambda item: item[0] == split):
            self._find(folder.path, name, count, places)
        missing = [clip.id for clip, shard in zip(clips, self.shard_of, strict=True) if shard < 0]
        if missing:
            raise DataError(
                f"{folder.path}: holds no targets of {len(missing)} of {len(clips)} clips of {split}: "
                f"{', '.join(missing[:NAMED_IN_ERROR])}; it has the splits {', '.join(dumped) or 'none'}. "
                "Dump them with av-ssl targets teacher, or let the teacher run in training: "
                "model.teacher_source=online"
            )

    def _find(self, folder: Path, split: str, count: int, places: dict[str, int]) -> None:
        ids = (folder / f"{split}.ids").read_text(encoding="utf-8").splitlines()
        for shard in shards_of(folder, split, count):
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
        """Targets float16 `[n, D]`, mapped: what a batch does not take is not read."""
        number = int(self.shard_of[index])
        if number not in self.mapped:  # in the worker that reads it
            self.mapped[number] = self.shards[number].read()[0]
        start = self.starts[index]
        return self.mapped[number][start : start + self.lengths[index]]

    def available(self, stored: StoredFrames | None, start: int, length: int) -> int:
        """Targets of `length` video frames from frame `start` on."""
        assert stored is not None
        return max(0, min(self.per_frame * length, len(stored) - self.per_frame * start))


def dumped_splits(folder: Path) -> dict[str, int]:
    """Splits that are dumped completely, and their numbers of shards."""
    counts: dict[str, int] = {}
    for ids in sorted(folder.glob("*.ids")):
        pattern = re.compile(re.escape(ids.stem) + r"_(\d+)_(\d+)\.len")
        found = [match for path in folder.glob("*.len") if (match := pattern.fullmatch(path.name))]
        if found and len(found) == int(found[0][2]):
            counts[ids.stem] = len(found)
    return counts
