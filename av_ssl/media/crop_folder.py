"""What became of every clip, kept so that a killed run can go on and several runs can share one folder.

Every run appends to a file of its own, one JSON line a clip, after the clip's files are in place. A line that
a kill cut short is ignored, so its clip is done again. Reading takes all files together.

All videos of a folder to training clips; can be killed, continued and run several times at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import cv2

from av_ssl.errors import DataError, MediaError
from av_ssl.io import remove_abandoned, write_atomically
from av_ssl.jobs import Crash, run_isolated
from av_ssl.media.corpus import ClipSource, find_videos, usable_name
from av_ssl.media.crop_settings import CropSettings, make_backend
from av_ssl.media.crops import NO_LANDMARKS, WRITE_FAILED, CropResult, check_usable, crop_clip
from av_ssl.media.faces import Backend

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


CRASHED = "crashed"  # the clip ended its worker process, or an error that nobody foresaw
BAD_NAME = "bad_name"  # the path cannot stand in a manifest
AGAIN = frozenset({CRASHED, WRITE_FAILED, NO_LANDMARKS})  # reasons for which a later run tries again


@dataclass(frozen=True)
class ClipFiles:
    """Where the two files of a clip lie below the output folder."""

    root: Path
    name: str  # the clip's id

    @property
    def video(self) -> Path:
        """Crop, mp4."""
        return self.root / "video" / f"{self.name}.mp4"

    @property
    def audio(self) -> Path:
        """Sound, wav."""
        return self.root / "audio" / f"{self.name}.wav"

    def exist(self) -> bool:
        """Whether both are there."""
        return self.video.is_file() and self.audio.is_file()


@dataclass(frozen=True)
class CropJob:
    """One clip to be cropped."""

    source: ClipSource
    files: ClipFiles
    settings: CropSettings
    stamp: Stamp


@dataclass
class FolderResult:
    """Results by clip id, sorted, and the video of each."""

    sources: dict[str, Path]
    results: dict[str, CropResult] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _backend(settings: CropSettings) -> Backend:
    """One a process: models take long to load."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    return make_backend(settings)


def crop_job(job: CropJob) -> CropResult:
    """Work of one process on one clip."""
    source, files, backend = job.source, job.files, _backend(job.settings)
    clip = source.recording or files.name
    return crop_clip(
        source.video, files.video, files.audio, job.settings, backend, source.span, source.sound, clip
    )


def crop_folder(
    source: Path | Mapping[str, ClipSource],
    out: Path,
    settings: CropSettings,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FolderResult:
    """Crop every video below `source`, or clips by id, into `out`; finished clips are not done again.

    `progress(done, total)` is called at the start and after every clip. Raises DataError when
    `source` holds no video or `out` was made with other settings, MediaError when the disk is full.
    """
    if isinstance(source, Path):
        source = {name: ClipSource(path) for name, path in find_videos(source, skip=out).items()}
    folder = FolderResult({name: clip.video for name, clip in source.items()})
    check_usable(settings)
    _check_settings(out, settings)
    for part in ("video", "audio"):
        remove_abandoned(out / part)
    journal = Journal(out / "journal")
    try:
        todo = _unfinished(source, folder, out, settings, journal)
        progress(len(folder.results), len(folder.sources))
        with contextlib.closing(_work(todo, journal, workers)) as work:
            for job, result in work:
                folder.results[job.files.name] = result
                progress(len(folder.results), len(folder.sources))
    finally:
        journal.close()
    folder.results = dict(sorted(folder.results.items()))
    return folder


def _unfinished(
    clips: Mapping[str, ClipSource],
    folder: FolderResult,
    out: Path,
    settings: CropSettings,
    journal: Journal,
) -> list[CropJob]:
    """The clips still to be done; results of the others are put into `folder`."""
    jobs = []
    for name, clip in clips.items():
        if not usable_name(name):
            message = f"{clip.video!s:.200}".encode("utf-8", "replace").decode()
            folder.results[name] = CropResult(
                BAD_NAME, f"{message!r}: rename it; it holds a tab or line break, or is not UTF-8"
            )
            continue
        job = CropJob(clip, ClipFiles(out, name), settings, Stamp.of(*clip.files))
        known = _known(job, journal)
        if known is None:
            jobs.append(job)
        else:
            folder.results[name] = known
    # Shuffled: two runs at once seldom meet on one clip, and the time left is estimated well.
    random.Random().shuffle(jobs)
    return jobs


def _known(job: CropJob, journal: Journal) -> CropResult | None:
    result = journal.result(job.files.name, job.stamp)
    if result is None or result.reason in AGAIN or (result.ok and not job.files.exist()):
        return None
    return result


def _work(
    jobs: list[CropJob], journal: Journal, workers: int
) -> Generator[tuple[CropJob, CropResult], None, None]:
    """Results as they come, noted in the journal; what another run finishes meanwhile is taken from there."""
    finished_elsewhere: list[tuple[CropJob, CropResult]] = []

    def still_open() -> Iterator[CropJob]:
        for job in jobs:
            journal.refresh()
            known = _known(job, journal)
            if known is None:
                yield job
            else:
                finished_elsewhere.append((job, known))

    with contextlib.closing(run_isolated(crop_job, still_open(), min(workers, len(jobs)))) as outcomes:
        for job, outcome in outcomes:
            result = _judged(job, outcome)
            journal.add(job.files.name, job.stamp, result)
            if result.reason == WRITE_FAILED:
                raise MediaError(result.message)
            yield job, result
    yield from finished_elsewhere


def _judged(job: CropJob, outcome: CropResult | Crash) -> CropResult:
    if isinstance(outcome, Crash):
        return CropResult(CRASHED, f"{job.source.video}: {outcome.message}")
    return outcome


def _check_settings(out: Path, settings: CropSettings) -> None:
    """Note the settings in `out`, or refuse to mix two kinds of crops there."""
    path = out / "settings.json"
    wanted = dataclasses.asdict(settings)
    if not path.exists():
        write_atomically(path, json.dumps(wanted, indent=1).encode() + b"\n")
        return
    try:
        present = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); remove the folder or choose another one") from error
    # Options that came with later versions have their defaults where an earlier one wrote the file.
    if {**dataclasses.asdict(CropSettings()), **present} != wanted:
        given = ((name.replace("_", "-"), value) for name, value in present.items() if value is not None)
        options = " ".join(f"--{name} {value}" for name, value in given)
        raise DataError(
            f"{path}: the clips here were cropped with {options}; use these or choose another folder"
        )
