"""Classes of whole clips, such as speakers and emotions.

Ids count from 0 in the order of a plain list, one name a line: a fairseq dictionary would reserve the first
four for symbols that no classifier needs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.labels import LabelFile
from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError

logger = logging.getLogger(__name__)

CLASSES = "class_names"
"""Key of a checkpoint's task state that holds the list."""
UNKNOWN = -1
"""Id of what is not in the list, e.g. of a speaker who is not in training."""


class ClassList:
    """Names of classes, whose ids are their positions.

    Args:
        names: one for each class.
        origin: names the file in errors.

    Raises DataError when a name comes twice, or there is none.
    """

    def __init__(self, names: Sequence[str], origin: str) -> None:
        self.names = list(names)
        self.origin = origin
        self.ids = {name: number for number, name in enumerate(self.names)}
        if not self.names:
            raise DataError(f"{origin}: names no class; write one a line")
        if len(self.ids) < len(self.names):
            twice = next(name for number, name in enumerate(self.names) if self.ids[name] != number)
            raise DataError(f"{origin}: names {twice} twice; every class needs a name of its own")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def load(cls, path: Path) -> ClassList:
        """Read a list, e.g. `classes.emo.txt`; raises DataError when it is missing, empty or no text."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: the list of classes cannot be read ({error}); write one name a line "
                "(av-ssl manifest does), or check task.label and task.label_dir"
            ) from error
        return cls([line.strip() for line in lines if line.strip()], str(path))

    def read(self, path: Path, clips: Sequence[Clip], training: bool) -> NDArray[np.int64]:
        """Ids `[N]` of the clips by a label file with one name a line; -1 for names that are not in the list.

        Raises DataError when the file is missing, differs in length from `clips`, or, for `training`, holds
        no known name at all.
        """
        labels = LabelFile(path, clips)
        ids = np.array([self.ids.get(labels.line(number), UNKNOWN) for number in range(len(clips))], np.int64)
        unknown = int((ids == UNKNOWN).sum())
        if unknown and training and unknown == len(ids):
            raise DataError(
                f"{path}: none of its labels, such as {labels.line(0)!r} on line 1, is in {self.origin} "
                f"({', '.join(self.names[:5])}, ...); use the list that belongs to these labels"
            )
        if unknown:
            logger.warning(
                "%s: the classes of %d of %d clips are not in %s: they do not count for accuracy",
                path, unknown, len(ids), self.origin,
            )  # fmt: skip
        return ids
