"""What became of every clip, kept so that a killed run can go on and several runs can share one folder.

Every run appends to a file of its own, one JSON line a clip, after the clip's files are in place. A line that
a kill cut short is ignored, so its clip is done again. Reading takes all files together.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import socket
import time
from pathlib import Path
from typing import IO

from av_ssl.errors import MediaError
from av_ssl.media.cropping import CropResult

REFRESH_EVERY = 2.0  # seconds between looks at what other runs have done


@dataclasses.dataclass(frozen=True)
class Stamp:
    """Size (bytes) and time of change (ns) of a clip's source: a file that was mended is cropped again."""

    size: int
    changed: int

    @classmethod
    def of(cls, *paths: Path) -> Stamp:
        """Stamp of the files as they are now: sizes added, last change; zeros when one cannot be seen."""
        try:
            statuses = [path.stat() for path in paths]
        except OSError:
            return cls(0, 0)
        size = sum(status.st_size for status in statuses)
        return cls(size, max(status.st_mtime_ns for status in statuses))


class Journal:
    """Results by clip id, of this run and all others that wrote into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Names sort by time, since the newest result of a clip counts.
        name = f"{time.time_ns():020d}-{socket.gethostname()}-{secrets.token_hex(4)}.jsonl"
        self._own = folder / name
        self._file: IO[bytes] | None = None
        self._read_to: dict[Path, int] = {}
        self._entries: dict[str, tuple[Stamp, CropResult]] = {}
        self._refreshed = float("-inf")
        self.refresh()

    def result(self, name: str, stamp: Stamp) -> CropResult | None:
        """Result of clip `name`, or None if it is not done or its source has changed since."""
        known, result = self._entries.get(name, (None, None))
        return result if known == stamp else None

    def add(self, name: str, stamp: Stamp, result: CropResult) -> None:
        """Note the result of a clip; raises MediaError naming the file when it cannot be written."""
        self._entries[name] = stamp, result
        entry = {"id": name, **dataclasses.asdict(stamp), **dataclasses.asdict(result)}
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = open(self._own, "ab", buffering=0)  # noqa: SIM115 - stays open for the run
            self._file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise MediaError(
                f"{self._own}: cannot be written ({error.strerror}); free space, then run again"
            ) from error

    def refresh(self) -> None:
        """Take in what other runs have added; looks at the disk at most every two seconds."""
        if time.monotonic() - self._refreshed < REFRESH_EVERY:
            return
        self._refreshed = time.monotonic()
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._own:
                self._read(path)

    def close(self) -> None:
        """End writing."""
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> None:
        with open(path, "rb") as file:
            file.seek(self._read_to.get(path, 0))
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._read_to[path] = self._read_to.get(path, 0) + whole
        for line in text[:whole].splitlines():
            try:
                entry = json.loads(line)
                name, stamp = entry.pop("id"), Stamp(entry.pop("size"), entry.pop("changed"))
                self._entries[name] = stamp, CropResult(**entry)
            except (ValueError, KeyError, TypeError):  # damaged, as by a crash of the machine: done again
                continue
