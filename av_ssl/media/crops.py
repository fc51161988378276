"""One video to one training clip: a crop of the speaker's mouth at 25 frames/s and its 16 kHz audio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import MediaError
from av_ssl.layout import SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.media.alignment import (
    OWN,
    REGIONS,
    MeanFace,
    crop_transforms,
    inside_share,
    is_face,
    load_mean_face,
    placed,
    warp,
)
from av_ssl.media.audio import chosen_track, fit_to_frames, frame_energy, read_sound, write_audio
from av_ssl.media.backends import BACKENDS, OPENCV, Backend, make_backend
from av_ssl.media.container import MissingStreamError
from av_ssl.media.face_mesh import FaceMesh, Floats
from av_ssl.media.landmark_files import LandmarkError
from av_ssl.media.sound_clock import Sound
from av_ssl.media.sources import ClipSource
from av_ssl.media.speaker import audio_delay, choose_speaker
from av_ssl.media.tracking import Faces
from av_ssl.media.video import Frames, VideoReader, write_video

MIN_FRAMES = 5  # 0.2 s: shorter clips hold no speech
CHECKED_FACES = 5  # frames of a clip in which landmarks of other back-ends are checked
LASTING = 0.2  # share of the clip in which a face must be found to be counted

OK = "ok"
UNREADABLE = "unreadable"  # the container or a stream cannot be decoded
NO_VIDEO = "no_video"  # a stream is missing
NO_AUDIO = "no_audio"
NO_FACE = "no_face"
FACE_LOST = "face_lost"  # no face is found in enough frames, or another one after a cut
OUTSIDE = "outside"  # the crops leave the frame
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
        min_face: share of the frames in which the speaker's face must be found.
        min_inside: share of the crops' area that must lie inside the frame.
    """

    size: int = 96
    region: str = "mouth"
    stride: int = 4
    backend: str = OPENCV
    dlib_model: str | None = None
    landmarks: str | None = None
    mean_face: str | None = None
    min_face: float = 0.8
    min_inside: float = 0.8

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be even and at least 16, not {self.size}")
        if self.region not in REGIONS:
            raise ValueError(f"region must be one of {', '.join(REGIONS)}, not {self.region}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, not {self.stride}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend}")

        for name in ("min_face", "min_inside"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")

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
    sound_gaps: float = 0.0  # seconds of silence where audio packets are missing
    sound_drift: float = 0.0  # seconds by which the clock of the audio runs away from the time stamps
    silent: bool = False  # the audio holds no sound
    face_share: float | None = None  # of the frames, with the speaker's face; None: unknown
    inside: float | None = None  # share of the crops' area inside the frame
    frozen: float = 0.0  # seconds without a new frame, in gaps of more than half a second
    sound_track: str = ""  # that is read, such as "2 of 3", where the file has several
    face_changes: int = 0  # times that another face appeared in the place of one, as at a cut

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
        sound, track = _read_sound(source)
        faces = backend.track(reader, source.recording or clip)
        result, points = _judge(faces, sound, track, reader, settings)
        if points is None:
            return result
        transforms = crop_transforms(points, settings.region, settings.size, mean_face)
        result = _check_crops(result, reader, points, transforms, settings)
        if not result.ok:
            return result
        crops = _cut(reader, transforms, settings.size)
    except MissingStreamError as error:
        return CropResult(f"no_{error.kind}", str(error))
    except LandmarkError as error:
        return CropResult(NO_LANDMARKS, str(error))
    except MediaError as error:
        return CropResult(UNREADABLE, str(error))
    try:
        write_audio(audio, fit_to_frames(sound.samples, len(crops)))
        write_video(video, crops)
    except MediaError as error:
        return CropResult(WRITE_FAILED, str(error))
    return result


def _read_sound(source: ClipSource) -> tuple[Sound, str]:
    """The sound of a clip, and which track of several it is."""
    try:
        return read_sound(source.video, span=source.span), chosen_track(source.video)
    except MissingStreamError:
        if source.sound is None:
            raise
        return read_sound(source.sound, span=source.span), chosen_track(source.sound)


def _judge(
    faces: Faces, sound: Sound, track: str, reader: VideoReader, settings: CropSettings
) -> tuple[CropResult, Floats | None]:
    """Whether the clip can be used, and the speaker's landmarks ``[T, P, 2 or 3]`` if so."""
    frames, samples = faces.frames, sound.samples
    result = CropResult(
        OK,
        frames=frames,
        samples=frames * SAMPLES_PER_FRAME,
        faces=sum(faces.share(track) >= LASTING for track in faces.tracks),
        source_fps=reader.source_fps,
        sound_track=track,
        frozen=round(reader.frozen, 3),
        sound_gaps=sound.gaps,
        sound_drift=sound.drift,
        silent=sound.silent,
        face_changes=faces.changes,
    )
    if frames < MIN_FRAMES:
        message = f"{frames} frames at 25 frames/s; {MIN_FRAMES} are needed"
        return replace(result, reason=TOO_SHORT, message=message), None
    if not len(samples):
        return replace(result, reason=NO_AUDIO, message="the audio stream is empty"), None
    energy = frame_energy(samples, frames)
    speaker = choose_speaker(faces.tracks, energy)
    if speaker is None:
        return replace(result, reason=NO_FACE, message="no face was found in any frame", face_share=0.0), None
    result = replace(result, face_share=round(faces.share(speaker), 4))
    if faces.share(speaker) < settings.min_face:
        cuts = f" and {faces.changes} changes of the face, as at cuts" if faces.changes else ""
        message = (
            f"one face in {faces.share(speaker):.0%} of the frames{cuts}; --min-face {settings.min_face:g}"
        )
        return replace(result, reason=FACE_LOST, message=message), None
    points = speaker.interpolated(frames)
    excess = round((len(samples) - result.samples) / SAMPLE_RATE, 3)
    return replace(result, audio_delay=audio_delay(points, energy), sound_excess=excess), points


def _check_crops(
    result: CropResult,
    reader: VideoReader,
    points: Floats,
    transforms: NDArray[np.float64],
    settings: CropSettings,
) -> CropResult:
    """The result, with the reason if the crops leave the frame or do not show a face."""
    inside = inside_share(transforms, settings.size, reader.size)
    result = replace(result, inside=round(inside, 4))
    if inside < settings.min_inside:
        message = (
            f"{inside:.0%} of the crops' area lies inside the frame; --min-inside {settings.min_inside:g}"
        )
        return replace(result, reason=OUTSIDE, message=message)
    if settings.backend != OPENCV:  # that one has looked at the faces itself
        looks = np.linspace(0, len(points) - 1, CHECKED_FACES).astype(int)
        found = [
            is_face(_mesh(), reader.show(stored), points[number])
            for number, stored in enumerate(reader.stored_frames())
            if number in looks
        ]
        if sum(found) * 2 < len(found):
            message = f"{sum(found)} of {len(found)} landmarks looked at lie on an upright face"
            return replace(result, reason=NO_FACE, message=message)
    return result


@cache
def _mesh() -> FaceMesh:
    return FaceMesh()


def _cut(reader: VideoReader, transforms: NDArray[np.float64], size: int) -> Frames:
    """Grayscale crops ``[T, size, size]``, each taken from the pixels as they are stored."""
    crops = []
    for stored, transform in zip(reader.stored_frames(), transforms, strict=True):
        image, place = reader.placed(stored, gray=True)
        crops.append(warp(image, placed(transform, place.ratio, place.offset), size))
    return np.stack(crops)
