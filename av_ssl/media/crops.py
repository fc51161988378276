"""One video to one training clip: a crop of the speaker's mouth at 25 frames/s and its 16 kHz audio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from av_ssl.errors import MediaError
from av_ssl.layout import SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.media.alignment import OWN, REGIONS, MeanFace, crop_transforms, load_mean_face, warp
from av_ssl.media.audio import Samples, fit_to_frames, frame_energy, read_audio, write_audio
from av_ssl.media.backends import BACKENDS, OPENCV, Backend, make_backend
from av_ssl.media.container import MissingStreamError
from av_ssl.media.face_mesh import Floats
from av_ssl.media.landmark_files import LandmarkError
from av_ssl.media.sources import ClipSource
from av_ssl.media.speaker import audio_delay, choose_speaker
from av_ssl.media.tracking import Faces
from av_ssl.media.video import Frames, VideoReader, write_video

MIN_FRAMES = 5  # 0.2 s: shorter clips hold no speech
LASTING = 0.2  # share of the clip in which a face must be found to be counted

OK = "ok"
UNREADABLE = "unreadable"  # the container or a stream cannot be decoded
NO_VIDEO = "no_video"  # a stream is missing
NO_AUDIO = "no_audio"
NO_FACE = "no_face"
NO_LANDMARKS = "no_landmarks"  # the landmark file is missing or belongs to another video
TOO_SHORT = "too_short"
WRITE_FAILED = "write_failed"  # disk full, folder not writable


@dataclass(frozen=True)
class CropSettings:
    """How clips are cropped; plain values, since they are stored in the folder of the crops.

    Args:
        size: side of the crop, pixels, even.
        region: ``mouth`` or ``face``.
        stride: landmarks are found on every ``stride``-th frame and interpolated in between; they are
            averaged over half a second anyway.
        backend: one of ``av_ssl.media.backends.BACKENDS``.
        dlib_model: dlib's shape predictor, for ``dlib``.
        landmarks: folder with landmark files, for ``files``.
        mean_face: file with AV-HuBERT's mean face; None takes our own.
    """

    size: int = 96
    region: str = "mouth"
    stride: int = 3
    backend: str = OPENCV
    dlib_model: str | None = None
    landmarks: str | None = None
    mean_face: str | None = None

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be even and at least 16, not {self.size}")
        if self.region not in REGIONS:
            raise ValueError(f"region must be one of {', '.join(REGIONS)}, not {self.region}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, not {self.stride}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend}")

    def make_backend(self) -> Backend:
        return make_backend(self.backend, self.stride, self.dlib_model, self.landmarks)

    def load_mean_face(self) -> MeanFace:
        return OWN if self.mean_face is None else load_mean_face(Path(self.mean_face))


@dataclass(frozen=True)
class CropResult:
    """Outcome of cropping a clip: a reason of this module, a message, and counts."""

    reason: str
    message: str = ""
    frames: int = 0  # at 25 frames/s
    samples: int = 0  # at 16 kHz
    faces: int = 0  # found in at least a fifth of the clip
    source_fps: float = 0.0
    audio_delay: float | None = None  # frames by which the audio is late against the lips; None: unknown
    sound_excess: float = 0.0  # seconds by which the audio is longer than the video; negative: shorter

    @property
    def ok(self) -> bool:
        return self.reason == OK


def crop_clip(
    source: Path | ClipSource,
    video: Path,
    audio: Path,
    settings: CropSettings | None = None,
    backend: Backend | None = None,
    clip: str = "",
) -> CropResult:
    """Crop the speaker of a video. Bad media is a reason in the result, never an exception.

    A clip that does not give both files writes neither, except when the disk fills up between the two.

    Args:
        source: the video, or the part of one.
        video: mp4 file to write.
        audio: wav file to write.
        settings: see ``CropSettings``.
        backend: saves creating that of the settings for every clip.
        clip: id of the clip, the name of its landmark file unless the source names a recording.

    Raises:
        DataError: a file that the settings name is missing.
    """
    source = ClipSource(source) if isinstance(source, Path) else source
    settings = settings or CropSettings()
    backend = backend or settings.make_backend()
    mean_face = settings.load_mean_face()
    reader = VideoReader(source.video, span=source.span)
    try:
        samples = _read_sound(source)
        faces = backend.track(reader, source.recording or clip)
        result, points = _judge(faces, samples, reader.source_fps)
        if points is None:
            return result
        crops = _cut(reader, points, settings, mean_face)
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


def _read_sound(source: ClipSource) -> Samples:
    try:
        samples = read_audio(source.video)
    except MissingStreamError:
        if source.sound is None:
            raise
        samples = read_audio(source.sound)
    if source.span is None:
        return samples
    start, end = (round(seconds * SAMPLE_RATE) for seconds in source.span)
    return samples[start:end]


def _judge(faces: Faces, samples: Samples, source_fps: float) -> tuple[CropResult, Floats | None]:
    """Whether the clip can be used, and the speaker's landmarks ``[T, P, 2 or 3]`` if so."""
    frames = faces.frames
    result = CropResult(
        OK,
        frames=frames,
        samples=frames * SAMPLES_PER_FRAME,
        faces=sum(len(track) >= LASTING * faces.searched for track in faces.tracks),
        source_fps=source_fps,
    )
    if frames < MIN_FRAMES:
        message = f"{frames} frames at 25 frames/s; {MIN_FRAMES} are needed"
        return replace(result, reason=TOO_SHORT, message=message), None
    if not len(samples):
        return replace(result, reason=NO_AUDIO, message="the audio stream is empty"), None
    energy = frame_energy(samples, frames)
    speaker = choose_speaker(faces.tracks, energy)
    if speaker is None:
        return replace(result, reason=NO_FACE, message="no face was found in any frame"), None
    points = speaker.interpolated(frames)
    excess = round((len(samples) - result.samples) / SAMPLE_RATE, 3)
    return replace(result, audio_delay=audio_delay(points, energy), sound_excess=excess), points


def _cut(reader: VideoReader, points: Floats, settings: CropSettings, mean_face: MeanFace) -> Frames:
    """Grayscale crops ``[T, size, size]``."""
    transforms = crop_transforms(points, settings.region, settings.size, mean_face)
    frames = zip(reader.frames(gray=True), transforms, strict=True)
    return np.stack([warp(frame, transform, settings.size) for frame, transform in frames])
