"""`av-ssl` whose crops need no faces: empty videos do."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from av_ssl.cli.main import main
from av_ssl.media import crop_folder
from av_ssl.media.audio import SAMPLES_PER_FRAME, write_audio
from av_ssl.media.crops import OK, CropResult
from av_ssl.media.video import FPS, write_video


def crop(job: crop_folder.CropJob) -> CropResult:
    """A gray second with noise of its own."""
    size = job.settings.size
    rng = np.random.default_rng(zlib.crc32(job.files.name.encode()))
    write_audio(job.files.audio, rng.integers(-3000, 3000, FPS * SAMPLES_PER_FRAME).astype(np.int16))
    write_video(job.files.video, np.full((FPS, size, size), 128, np.uint8))
    return CropResult(OK, frames=FPS, samples=FPS * SAMPLES_PER_FRAME, faces=1, source_fps=25.0)


def in_this_process(
    function: Callable, jobs: Iterable[crop_folder.CropJob], workers: int
) -> Iterator[tuple[crop_folder.CropJob, CropResult]]:
    """In place of the worker processes."""
    for job in jobs:
        yield job, crop(job)


if __name__ == "__main__":
    crop_folder.run_isolated = in_this_process
    sys.exit(main())
