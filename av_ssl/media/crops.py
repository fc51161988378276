"""One video to one training clip: a crop of the speaker's mouth at 25 frames/s and its 16 kHz audio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from av_ssl.errors import MediaError
from av_ssl.media.alignment import (
    OWN,
    Floats,
    MeanFace,
    Picture,
    crop_transforms,
    load_mean_face,
    warp,
)
from av_ssl.media.audio import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Samples,
    fit_to_frames,
    frame_energy,
    read_audio,
    write_audio,
)
from av_ssl.media.container import MissingStreamError
from av_ssl.media.crop_settings import CropSettings, make_backend
from av_ssl.media.faces import Backend, Faces, LandmarkError
from av_ssl.media.speaker import audio_delay, choose_speaker
from av_ssl.media.video import Span, VideoReader, write_video

MIN_FRAMES = 5  # 0.2 s: shorter clips hold no speech
LASTING = 0.2  # share of the clip in which a face must be seen to be counted

OK = "ok"
UNREADABLE = "unreadable"  # the container or a stream cannot be decoded
NO_VIDEO = "no_video"  # a stream is missing
NO_AUDIO = "no_audio"
NO_FACE = "no_face"
NO_LANDMARKS = "no_landmarks"  # the file with ready-made ones is missing or of another video
TOO_SHORT = "too_short"
WRITE_FAILED = "write_failed"  # disk full, folder not writable


@dataclass(frozen=True)
class CropResult:
    """What became of a clip: a reason code of this module, a message, and what was counted."""

    reason: str
    message: str = ""
    frames: int = 0  # at 25 frames/s
    samples: int = 0  # at 16 kHz
    faces: int = 0  # seen in at least a fifth of the clip
    source_fps: float = 0.0
    audio_delay: float | None = None  # frames by which the sound comes after the lips; None: unknown
    sound_excess: float = 0.0  # seconds by which the sound outlasts the pictures; negative: it ends first

    @property
    def ok(self) -> bool:
        """Whether both files were written."""
        return self.reason == OK


def check_usable(settings: CropSettings) -> None:
    """Raise DataError when a package or file that the settings name is missing or is something else."""
    make_backend(settings)
    _mean_face(settings)


def crop_clip(
    source: Path,
    video: Path,
    audio: Path,
    settings: CropSettings | None = None,
    backend: Backend | None = None,
    span: Span | None = None,
    sound: Path | None = None,
    clip: str = "",
) -> CropResult:
    """Crop the speaker of `source` into `video` (mp4) and write its sound to `audio` (wav).

    Bad media is a reason in the result, never an exception. A clip that does not give both writes neither,
    except when the disk fills up between the two. `backend` saves making that of the settings for every clip.
    `span`, start and end in seconds, is the part of `source` that is the clip. `sound` is heard where
    `source` has no audio stream. `clip` is the id under which ready-made landmarks of the whole `source` are
    found. Raises DataError when the settings name something that is not there.
    """
    settings = settings or CropSettings()
    backend = backend or make_backend(settings)
    reader = VideoReader(source, span=span)
    try:
        samples = _read_sound(source, sound, span)
        faces = backend.follow(reader, clip)
        result, points = _judge(faces, samples, reader.source_fps)
        if points is None:
            return result
        crops = _cut(reader, points, settings)
    except MissingStreamError as error:
        return CropResult(f"no_{error.kind}", str(error))
    except LandmarkError as error:
        return CropResult(NO_LANDMARKS, str(error))
    except MediaError as error:
        return CropResult(UNREADABLE, str(error))
    try:
        write_audio(audio, fit_to_frames(samples, len(crops)))
        write_video(video, crops)
    except MediaError as error:
        return CropResult(WRITE_FAILED, str(error))
    return result


def _read_sound(source: Path, sound: Path | None, span: Span | None) -> Samples:
    try:
        samples = read_audio(source)
    except MissingStreamError:
        if sound is None:
            raise
        samples = read_audio(sound)
    if span is None:
        return samples
    start, end = (round(seconds * SAMPLE_RATE) for seconds in span)
    return samples[start:end]


def _judge(faces: Faces, samples: Samples, source_fps: float) -> tuple[CropResult, Floats | None]:
    """Whether the clip can be used, and the speaker's landmarks `[T, P, 2 or 3]` if so."""
    frames = faces.frames
    result = CropResult(
        OK,
        frames=frames,
        samples=frames * SAMPLES_PER_FRAME,
        faces=sum(len(track) >= LASTING * faces.looked_at for track in faces.tracks),
        source_fps=source_fps,
    )
    if frames < MIN_FRAMES:
        message = f"{frames} frames at 25 frames/s; {MIN_FRAMES} are needed"
        return replace(result, reason=TOO_SHORT, message=message), None
    if not len(samples):
        return replace(result, reason=NO_AUDIO, message="the audio stream holds no sound"), None
    energy = frame_energy(samples, frames)
    speaker = choose_speaker(faces.tracks, energy)
    if speaker is None:
        return replace(result, reason=NO_FACE, message="no face was found in any frame"), None
    points = speaker.interpolated(frames)
    excess = round((len(samples) - result.samples) / SAMPLE_RATE, 3)
    return replace(result, audio_delay=audio_delay(points, energy), sound_excess=excess), points


def _cut(reader: VideoReader, points: Floats, settings: CropSettings) -> Picture:
    """Gray crops `[T, size, size]`."""
    transforms = crop_transforms(points, settings.region, settings.size, _mean_face(settings))
    pictures = zip(reader.frames(gray=True), transforms, strict=True)
    return np.stack([warp(picture, transform, settings.size) for picture, transform in pictures])


def _mean_face(settings: CropSettings) -> MeanFace:
    return OWN if settings.mean_face is None else load_mean_face(Path(settings.mean_face))
