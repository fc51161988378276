"""One video to one training clip: a crop of the speaker's mouth at 25 frames/s and its 16 kHz audio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from av_ssl.errors import MediaError
from av_ssl.media.alignment import CROP_SHAPES, Picture, crop_transforms, warp
from av_ssl.media.audio import (
    SAMPLES_PER_FRAME,
    Samples,
    fit_to_frames,
    frame_energy,
    read_audio,
    write_audio,
)
from av_ssl.media.container import MissingStreamError
from av_ssl.media.face_mesh import FaceMesh, Floats
from av_ssl.media.speaker import choose_speaker
from av_ssl.media.tracking import FaceTracker
from av_ssl.media.video import VideoReader, write_video

MIN_FRAMES = 5  # 0.2 s: shorter clips hold no speech
LASTING = 0.2  # share of the clip in which a face must be seen to be counted

OK = "ok"
UNREADABLE = "unreadable"  # the container or a stream cannot be decoded
NO_VIDEO = "no_video"  # a stream is missing
NO_AUDIO = "no_audio"
NO_FACE = "no_face"
TOO_SHORT = "too_short"
WRITE_FAILED = "write_failed"  # disk full, folder not writable


@dataclass(frozen=True)
class CropSettings:
    """What is cut out of every clip.

    size: side of the crop, pixels, even. region: "mouth" or "face". stride: landmarks are found on every k-th
    frame.
    """

    size: int = 96
    region: str = "mouth"
    stride: int = 1

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be even and at least 16, not {self.size}")
        if self.region not in CROP_SHAPES:
            raise ValueError(f"region must be one of {', '.join(CROP_SHAPES)}, not {self.region}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, not {self.stride}")


@dataclass(frozen=True)
class CropResult:
    """What became of a clip: a reason code of this module, a message, and what was counted."""

    reason: str
    message: str = ""
    frames: int = 0  # at 25 frames/s
    samples: int = 0  # at 16 kHz
    faces: int = 0  # seen in at least a fifth of the clip
    source_fps: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether both files were written."""
        return self.reason == OK


def crop_clip(
    source: Path,
    video: Path,
    audio: Path,
    settings: CropSettings | None = None,
    mesh: FaceMesh | None = None,
) -> CropResult:
    """Crop the speaker of `source` into `video` (mp4) and write its sound to `audio` (wav).

    Bad media is a reason in the result, never an exception. A clip that does not give both writes neither,
    except when the disk fills up between the two. `mesh` saves loading the models again for every clip.
    """
    settings = settings or CropSettings()
    reader = VideoReader(source)
    try:
        samples = read_audio(source)
        tracker = FaceTracker(mesh or FaceMesh(), settings.stride)
        for picture in reader.frames():
            tracker.update(picture)
        result, points = _judge(tracker, samples, reader.source_fps)
        if points is None:
            return result
        crops = _cut(reader, points, settings)
    except MissingStreamError as error:
        return CropResult(f"no_{error.kind}", str(error))
    except MediaError as error:
        return CropResult(UNREADABLE, str(error))
    try:
        write_audio(audio, fit_to_frames(samples, len(crops)))
        write_video(video, crops)
    except MediaError as error:
        return CropResult(WRITE_FAILED, str(error))
    return result


def _judge(tracker: FaceTracker, samples: Samples, source_fps: float) -> tuple[CropResult, Floats | None]:
    """Whether the clip can be used, and the speaker's mesh points `[T, 468, 3]` if so."""
    frames = tracker.frames
    needed = LASTING * frames / tracker.stride
    faces = sum(len(track) >= needed for track in tracker.tracks)

    def result(reason: str, message: str) -> CropResult:
        return CropResult(reason, message, frames, frames * SAMPLES_PER_FRAME, faces, source_fps)

    if frames < MIN_FRAMES:
        return result(TOO_SHORT, f"{frames} frames at 25 frames/s; {MIN_FRAMES} are needed"), None
    if not len(samples):
        return result(NO_AUDIO, "the audio stream holds no sound"), None
    speaker = choose_speaker(tracker.tracks, frame_energy(samples, frames))
    if speaker is None:
        return result(NO_FACE, "no face was found in any frame"), None
    return result(OK, ""), speaker.interpolated(frames)


def _cut(reader: VideoReader, points: Floats, settings: CropSettings) -> Picture:
    """Gray crops `[T, size, size]`."""
    transforms = crop_transforms(points, settings.region, settings.size)
    pictures = zip(reader.frames(gray=True), transforms, strict=True)
    return np.stack([warp(picture, transform, settings.size) for picture, transform in pictures])
