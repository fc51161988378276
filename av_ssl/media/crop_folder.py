"""All videos of a folder to training clips, in local processes or on a cluster.

A run can be killed and continued, and several runs can share one output folder. For that every run appends to
a journal file of its own, one JSON line a clip, after the files of the clip are complete. A line that a kill
cut short is ignored, so its clip is cropped again. Reading takes the files of all runs together.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

import cv2

from av_ssl.errors import DataError, MediaError
from av_ssl.io import keep_settings, remove_abandoned
from av_ssl.jobs import Crash, JobOptions, run_isolated, run_shards
from av_ssl.media.backends import Backend
from av_ssl.media.crops import NO_LANDMARKS, WRITE_FAILED, CropResult, CropSettings, crop_clip
from av_ssl.media.landmark_files import landmark_file
from av_ssl.media.sources import ClipSource, find_videos, usable_name

CRASHED = "crashed"  # the clip ended its process, or an unforeseen error
BAD_NAME = "bad_name"  # the path cannot be written into a manifest
AGAIN = frozenset({CRASHED, WRITE_FAILED, NO_LANDMARKS})  # reasons after which a later run tries again
REFRESH_EVERY = 2.0  # seconds between looks at the results of other runs
CLIPS_A_SHARD = 2000  # a few hours for a core; small enough that machines finish together

Progress = Callable[[int, int], None]
Sources = Mapping[str, ClipSource]


@dataclass
class FolderResult:
    """Results by clip id, sorted, and the video of each."""

    sources: dict[str, Path]
    results: dict[str, CropResult] = field(default_factory=dict)


def crop_folder(
    source: Path | Sources,
    out: Path,
    settings: CropSettings | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> FolderResult:
    """Crop videos in local processes; finished clips are not cropped again.

    Args:
        source: a folder, of which every video is cropped, or clips by id.
        out: folder for ``video/ID.mp4`` and ``audio/ID.wav``.
        progress: called as ``progress(done, total)`` at the start and after every clip.

    Raises:
        DataError: ``source`` holds no video, or the clips in ``out`` were cropped with other settings.
        MediaError: the disk is full.
    """
    clips = _clips(source, out)
    settings = settings or CropSettings()
    folder = FolderResult({name: clip.video for name, clip in clips.items()})
    settings.make_backend()  # both raise DataError when the settings name something unusable
    settings.load_mean_face()
    fix = "use the same options, or choose another folder"
    keep_settings(out / "settings.json", asdict(settings), fix, asdict(CropSettings()))
    for part in ("video", "audio"):
        remove_abandoned(out / part)
    with contextlib.closing(Journal(out / "journal")) as journal:
        todo = _unfinished(clips, folder, out, settings, journal)
        progress(len(folder.results), len(folder.sources))
        with contextlib.closing(_work(todo, journal, workers)) as work:
            for job, result in work:
                folder.results[job.name] = result
                progress(len(folder.results), len(folder.sources))
    folder.results = dict(sorted(folder.results.items()))
    return folder


def crop_on_cluster(
    source: Path | Sources,
    out: Path,
    settings: CropSettings,
    where: JobOptions,
    progress: Progress = lambda done, total: None,
) -> FolderResult:
    """Crop videos as ``crop_folder`` does, by jobs of a cluster that share ``out``.

    Args:
        where: the jobs run; each uses ``where.cpus`` processes.
        progress: called with numbers of shards.

    Raises:
        DataError: jobs have failed; the clips that they finished are kept.
    """
    clips = _clips(source, out)
    shard = partial(crop_shard, out=out.absolute(), settings=settings, workers=where.cpus)
    run_shards(shard, divide(clips, where.workers), where, out / "logs", progress)
    return crop_folder(clips, out, settings)  # takes all results from the journal


def divide(clips: Sources, workers: int) -> list[dict[str, ClipSource]]:
    """Shards of at most 2000 clips, at least one for each worker as long as clips suffice."""
    names = sorted(clips)
    count = max(-(-len(names) // CLIPS_A_SHARD), min(workers, len(names)))
    # Every count-th clip: neighbours in a corpus have one speaker or film and so similar lengths.
    return [{name: clips[name].absolute() for name in names[start::count]} for start in range(count)]


def crop_shard(clips: Sources, out: Path, settings: CropSettings, workers: int) -> int:
    """Crop the clips of one cluster job; returns how many succeeded."""
    return sum(result.ok for result in crop_folder(clips, out, settings, workers).results.values())


def check_out(source: Path, out: Path) -> None:
    """Raise DataError when crops would be written over the videos of ``source``, a folder."""
    videos, written = source.resolve(), out.resolve()
    if videos == written or videos.is_relative_to(written / "video"):
        raise DataError(f"{out}: crops would be written over the videos of IN; name another folder for OUT")


def _clips(source: Path | Sources, out: Path) -> Sources:
    if isinstance(source, Path):
        check_out(source, out)
        return {name: ClipSource(path) for name, path in find_videos(source, skip=out).items()}
    for folder in {clip.video.parent for clip in source.values()}:
        if folder.resolve().is_relative_to(out.resolve() / "video"):
            check_out(folder, out)
    return source


@dataclass(frozen=True)
class CropJob:
    name: str  # the clip's id
    source: ClipSource
    out: Path
    settings: CropSettings
    size: int  # of the source's files, bytes, together
    changed: int  # their last change, ns; a source whose size or time differs is cropped again

    @property
    def video(self) -> Path:
        return self.out / "video" / f"{self.name}.mp4"

    @property
    def audio(self) -> Path:
        return self.out / "audio" / f"{self.name}.wav"


def read_files(name: str, clip: ClipSource, settings: CropSettings) -> list[Path]:
    """Files whose change causes a clip to be cropped again."""
    files = list(clip.files)
    if settings.landmarks is not None:
        found = landmark_file(Path(settings.landmarks), clip.recording or name)
        files += [] if found is None else [found]
    return files


def size_and_change(paths: Sequence[Path]) -> tuple[int, int]:
    """Sum of the sizes of files (bytes) and their last change (ns); zeros when one cannot be read."""
    try:
        statuses = [path.stat() for path in paths]
    except OSError:
        return 0, 0
    return sum(status.st_size for status in statuses), max(status.st_mtime_ns for status in statuses)


def crop_job(job: CropJob) -> CropResult:
    return crop_clip(job.source, job.video, job.audio, job.settings, _backend(job.settings), job.name)


@lru_cache(maxsize=1)
def _backend(settings: CropSettings) -> Backend:
    """The back-end of this process: models take long to load."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    return settings.make_backend()


class Journal:
    """Results by clip id, of this run and all others that wrote into ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Names sort by time, since the newest result of a clip counts.
        name = f"{time.time_ns():020d}-{socket.gethostname()}-{secrets.token_hex(4)}.jsonl"
        self._own = folder / name
        self._file: IO[bytes] | None = None
        self._read_to: dict[Path, int] = {}
        self._entries: dict[str, tuple[int, int, CropResult]] = {}
        self._refreshed = float("-inf")
        self.refresh()

    def finished(self, job: CropJob) -> CropResult | None:
        """Result of a clip; None if it is to be cropped (again)."""
        size, changed, result = self._entries.get(job.name, (0, 0, None))
        if result is None or (size, changed) != (job.size, job.changed) or result.reason in AGAIN:
            return None
        return None if result.ok and not (job.video.is_file() and job.audio.is_file()) else result

    def add(self, job: CropJob, result: CropResult) -> None:
        """Append the result of a clip; raises MediaError when the journal cannot be written."""
        self._entries[job.name] = job.size, job.changed, result
        entry = {"id": job.name, "size": job.size, "changed": job.changed, **asdict(result)}
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
        """Read what other runs have added, at most every two seconds."""
        if time.monotonic() - self._refreshed < REFRESH_EVERY:
            return
        self._refreshed = time.monotonic()
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._own:
                self._read(path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> None:
        with open(path, "rb") as file:
            file.seek(self._read_to.get(path, 0))
            text = file.read()
        complete = text.rfind(b"\n") + 1
        self._read_to[path] = self._read_to.get(path, 0) + complete
        for line in text[:complete].splitlines():
            try:
                entry = json.loads(line)
                name, size, changed = (entry.pop(key) for key in ("id", "size", "changed"))
                self._entries[name] = size, changed, CropResult(**entry)
            except (ValueError, KeyError, TypeError):  # damaged, as by a crash of the machine: cropped again
                continue


def _unfinished(
    clips: Sources, folder: FolderResult, out: Path, settings: CropSettings, journal: Journal
) -> list[CropJob]:
    """The clips still to be cropped; the results of the others are put into ``folder``."""
    jobs = []
    for name, clip in clips.items():
        if not usable_name(name):
            shown = f"{clip.video!s:.200}".encode("utf-8", "replace").decode()
            message = f"{shown!r}: rename it; it holds a tab or line break, or is not UTF-8"
            folder.results[name] = CropResult(BAD_NAME, message)
            continue
        job = CropJob(name, clip, out, settings, *size_and_change(read_files(name, clip, settings)))
        result = journal.finished(job)
        if result is None:
            jobs.append(job)
        else:
            folder.results[name] = result
    # In random order two simultaneous runs seldom meet on one clip, and the time left is estimated well.
    random.Random().shuffle(jobs)
    return jobs


def _work(
    jobs: list[CropJob], journal: Journal, workers: int
) -> Generator[tuple[CropJob, CropResult], None, None]:
    """Results as they come, added to the journal; what another run finishes meanwhile is taken from there."""
    finished_elsewhere: list[tuple[CropJob, CropResult]] = []

    def still_open() -> Iterator[CropJob]:
        for job in jobs:
            journal.refresh()
            result = journal.finished(job)
            if result is None:
                yield job
            else:
                finished_elsewhere.append((job, result))

    with contextlib.closing(run_isolated(crop_job, still_open(), min(workers, len(jobs)))) as outcomes:
        for job, outcome in outcomes:
            if isinstance(outcome, Crash):
                outcome = CropResult(CRASHED, f"{job.source.video}: {outcome.message}")
            journal.add(job, outcome)
            if outcome.reason == WRITE_FAILED:
                raise MediaError(outcome.message)
            yield job, outcome
    yield from finished_elsewhere
