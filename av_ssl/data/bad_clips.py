"""Clips that cannot be read: written down once, tolerated while they are few."""

from __future__ import annotations

import logging
import os
from collections.abc import Set
from pathlib import Path

from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError

logger = logging.getLogger(__name__)

TOLERATED_SHARE = 0.01
NAMED_IN_ERROR = 20


class BadClips:
    """The bad clips of one data set, shared by all workers and ranks through a file.

    Args:
        file: lines of id and reason (which names the file), tab-separated; None keeps the list within the
            process.
        ids: of the clips of the data set; other lines of the file do not count.
    """

    def __init__(self, file: Path | None, ids: Set[str]) -> None:
        self.file = file
        self.ids = ids
        self.tolerated = max(1, int(TOLERATED_SHARE * len(ids)))
        self.reasons: dict[str, str] = {}

    def record(self, clip: Clip, error: Exception) -> None:
        """Write a clip down; raises DataError with the list once more than 1 % (and than one) are bad."""
        if clip.id not in self.reasons:
            reason = " ".join(str(error).split())
            logger.warning("clip %s is left out: %s", clip.id, reason)
            self._share(clip.id, reason)
        if len(self.reasons) <= self.tolerated:
            return
        named = [f"  {id}: {reason}" for id, reason in self.reasons.items()][:NAMED_IN_ERROR]
        if len(self.reasons) > NAMED_IN_ERROR:
            named.append(f"  and {len(self.reasons) - NAMED_IN_ERROR} more")
        listed = f"; {self.file} lists them, delete it once they are mended" if self.file else ""
        raise DataError(
            f"{len(self.reasons)} clips cannot be read, {self.tolerated} would be tolerated. Mend them or "
            f"take them out of the manifest and its label files{listed}:\n" + "\n".join(named)
        )

    def _share(self, id: str, reason: str) -> None:
        """Take over what other processes have written, then add this clip unless it is there."""
        self.reasons.update(self._written())
        if id in self.reasons:
            return
        self.reasons[id] = reason
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file opened for appending: lines of several processes do not mix.
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, f"{id}\t{reason}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); bad clips are counted a process", self.file, error.strerror
            )

    def _written(self) -> dict[str, str]:
        if self.file is None or not self.file.exists():
            return {}
        lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = (line.partition("\t") for line in lines if line)
        return {id: reason for id, _, reason in entries if id in self.ids}
