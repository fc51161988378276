"""All videos of a folder to training clips; can be killed, continued and run several times at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from av_ssl.errors import DataError, MediaError
from av_ssl.media.corpus import find_videos, usable_name
from av_ssl.media.cropping import WRITE_FAILED, CropResult, CropSettings, crop_clip
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.files import remove_abandoned, write_atomically
from av_ssl.media.journal import Journal, Stamp
from av_ssl.media.worker_pool import Crash, run_isolated

CRASHED = "crashed"  # the clip ended its worker process, or an error that nobody foresaw
BAD_NAME = "bad_name"  # the path cannot stand in a manifest
AGAIN = frozenset({CRASHED, WRITE_FAILED})  # reasons for which a later run tries again


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

    source: Path
    files: ClipFiles
    settings: CropSettings
    stamp: Stamp


@dataclass
class FolderResult:
    """Results by clip id, sorted, and the source of each."""

    sources: dict[str, Path]
    results: dict[str, CropResult] = field(default_factory=dict)


_mesh: FaceMesh | None = None  # one a process


def crop_job(job: CropJob) -> CropResult:
    """Work of one process on one clip."""
    global _mesh
    if _mesh is None:
        cv2.setNumThreads(1)  # the processes are the parallelism
        _mesh = FaceMesh()
    return crop_clip(job.source, job.files.video, job.files.audio, job.settings, _mesh)


def crop_folder(
    source: Path,
    out: Path,
    settings: CropSettings,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FolderResult:
    """Crop every video below `source` into `out`; finished clips are not done again.

    `progress(done, total)` is called at the start and after every clip. Raises DataError when
    `source` holds no video or `out` was made with other settings, MediaError when the disk is full.
    """
    folder = FolderResult(find_videos(source, skip=out))
    _check_settings(out, settings)
    for part in ("video", "audio"):
        remove_abandoned(out / part)
    journal = Journal(out / "journal")
    try:
        todo = _unfinished(folder, out, settings, journal)
        progress(len(folder.results), len(folder.sources))
        with contextlib.closing(_work(todo, journal, workers)) as work:
            for job, result in work:
                folder.results[job.files.name] = result
                progress(len(folder.results), len(folder.sources))
    finally:
        journal.close()
    folder.results = dict(sorted(folder.results.items()))
    return folder


def _unfinished(folder: FolderResult, out: Path, settings: CropSettings, journal: Journal) -> list[CropJob]:
    """The clips still to be done; results of the others are put into `folder`."""
    jobs = []
    for name, path in folder.sources.items():
        if not usable_name(name):
            message = f"{path!s:.200}".encode("utf-8", "replace").decode()
            folder.results[name] = CropResult(
                BAD_NAME, f"{message!r}: rename it; it holds a tab or line break, or is not UTF-8"
            )
            continue
        job = CropJob(path, ClipFiles(out, name), settings, Stamp.of(path))
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
        return CropResult(CRASHED, f"{job.source}: {outcome.message}")
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
    if present != wanted:
        options = " ".join(f"--{name} {value}" for name, value in present.items())
        raise DataError(
            f"{path}: the clips here were cropped with {options}; use these or choose another folder"
        )
