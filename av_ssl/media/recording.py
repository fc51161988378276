"""A recording as parts that a recogniser can take: mouth crops, sound or both, in bounded memory.

A long recording is cut where its sound pauses, else anywhere, and then parts overlap. A part ends, too, where
the face is lost or another one takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError, MediaError
from av_ssl.io import mapped_array
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, STREAMS
from av_ssl.media.alignment import OWN, MeanFace
from av_ssl.media.audio import Samples, chosen_track, fit_to_frames, frame_energy, read_audio
from av_ssl.media.container import MissingStreamError, stated_seconds
from av_ssl.media.crops import MIN_FRAMES
from av_ssl.media.face_crops import (
    LARGEST_CROP,
    Choice,
    Crops,
    Face,
    FaceCrops,
    FaceSpan,
    ReadyCrops,
    View,
    are_mouth_crops,
    filled,
)
from av_ssl.media.face_mesh import FaceMesh, Frame
from av_ssl.media.sound_clock import Sound
from av_ssl.media.speaker import choose_speaker
from av_ssl.media.tracking import Track
from av_ssl.media.video import Frames, VideoReader

SPEAKER, LEFT, RIGHT, LARGEST = "speaker", "left", "right", "largest"
FACE_RULES = (SPEAKER, LEFT, RIGHT, LARGEST)
PART_SECONDS = 16.0  # recognisers are trained on clips of up to 20 s
OVERLAP = 37  # frames (1.5 s) that two parts share where there is no pause: one or two words at the border
EARLIEST_CUT = 0.4  # of a part
PAUSE = 5  # frames, 0.2 s
PAUSE_LEVEL = 0.1  # of the loud frames of the part: -20 dB
LOUDEST_ARRAY = 1.5  # of floating-point samples: resampling makes a little over 1, only decoders make more
SILENCE = 10.0  # root mean square of int16 samples, -70 dB
LASTING = 0.5  # of the face seen longest: a face seen less is not the leftmost, ...
WHOLE, BLOCK = 600, 60  # seconds: sound up to this length is read at once, of longer ones so much
LOOKED_AT = slice(0, 101, 20)  # frames that decide whether a file holds mouth crops

KINDS = (
    "frames are uint8 [T, H, W] or [T, H, W, 3] at 25 Hz, samples int16 or floating-point [N] at 16 kHz, one "
    "channel; a file is named by its path"
)
SMALLEST_CROP = 16  # pixels

Source = Path | Frames
RecordingLike = str | os.PathLike[str] | NDArray[Any]
"""A file of video, sound or mouth crops, or an array: frames uint8 ``[T, H, W]`` (gray) or ``[T, H, W, 3]``
(RGB) at 25 Hz, or samples ``[N]`` at 16 kHz, int16, or floating-point from -1 to 1."""


@dataclass(frozen=True)
class Part:
    """A stretch of a recording for one call of a recogniser.

    Args:
        start: seconds from the start of the recording.
        frames: mouth crops ``[T, S, S]`` at 25 Hz, grayscale; None: no usable face.
        samples: sound ``[N]`` at 16 kHz, mono, ``N == 640 * T`` where there are frames; None: no sound.
        face: number of the face, from 1 in the order of appearance, from left to right; None without one.
    """

    start: float
    frames: NDArray[np.uint8] | None
    samples: NDArray[np.int16] | None
    face: int | None = None

    @property
    def end(self) -> float:
        """Seconds from the start of the recording."""
        if self.frames is not None:
            return self.start + len(self.frames) / FRAME_RATE
        return self.start + (0 if self.samples is None else len(self.samples)) / SAMPLE_RATE


class Recording:
    """A video of faces, a file of mouth crops, or sound, of any length.

    Args:
        source: see ``RecordingLike``.
        sound: a file or samples; None: the audio of the file.
        streams: those that are needed; others are not decoded.
        mean_face: see ``alignment``.
        size: side S of the crops, pixels.
        cropped: the source holds crops; False: ``are_mouth_crops`` decides.

    Raises:
        DataError: the file cannot be read, or has none of the streams.
    """

    def __init__(
        self,
        source: RecordingLike,
        sound: RecordingLike | None = None,
        streams: Sequence[str] = STREAMS["av"],
        mean_face: MeanFace = OWN,
        size: int = 96,
        cropped: bool = False,
    ) -> None:
        self.name = name_of(source)
        self.source = as_source(source)
        self.cropped = cropped  # the source holds mouth crops
        self.lost: list[tuple[float, float]] = []  # start and end, in seconds, of stretches without the face
        self.read = 0.0  # seconds that were read
        self._frames = self._seen = 0
        self._crops = None
        if "video" in streams and not _is_sound(self.source):
            self._crops = self._open_video(self.source, size, mean_face)
        self._sound_source = self.source if sound is None else as_source(sound)
        self._sound = _open_sound(self._sound_source)
        if not set(streams) & set(self.streams):
            kind = "" if self.streams or isinstance(self.source, np.ndarray) else ", not an image"
            raise MediaError(
                f"{self.name}: has no {' and no '.join(streams)} stream; name another recording{kind}"
            )

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that there are, among those needed."""
        there = {"audio": self._sound is not None, "video": self._crops is not None}
        return tuple(stream for stream in STREAMS["av"] if there[stream])

    @property
    def face_share(self) -> float:
        """Share of the recording, as far as it was read, in which the face was seen; 0 to 1."""
        return self._seen / max(1, self._frames)

    @property
    def track(self) -> str:
        """The audio track that is read, such as ``2 of 3``; empty where the file has not several."""
        path = self._sound_source
        return chosen_track(path) if self._sound is not None and isinstance(path, Path) else ""

    @property
    def silent(self) -> bool:
        """Whether there is audio, and as far as it was read it holds no sound."""
        return self._sound is not None and self._sound.silent

    @property
    def video_frames(self) -> int:
        """Frames that were read, at 25 Hz."""
        return 0 if self._crops is None else self._crops.count

    @property
    def seconds(self) -> float | None:
        """Length as the file states it; None where it does not."""
        if isinstance(self.source, Path):
            return stated_seconds(self.source)
        return len(self.source) / (SAMPLE_RATE if _is_sound(self.source) else FRAME_RATE)

    def parts(self, face: str | int = SPEAKER, all_faces: bool = False) -> Iterator[Part]:
        """Parts of `PART_SECONDS` in order; can be called once.

        Args:
            face: one of FACE_RULES, or the number of a face. Where it is not seen, the rules take another.
            all_faces: every face in turn; only parts with a face.
        """
        start, frames, choose = 0, round(PART_SECONDS * FRAME_RATE), self._choice(face)
        while True:
            end, last = self._read(start + frames)
            self.read = end / FRAME_RATE
            if last and end < MIN_FRAMES and not start:
                raise MediaError(
                    f"{self.name}: lasts {end} frame(s) of 40 ms, {MIN_FRAMES} are needed; name a video or "
                    "sound, not an image"
                )
            overlap = 0
            if not last:
                pause = self._pause(start, end)
                end, overlap = (end, OVERLAP) if pause is None else (start + pause, 0)
            yield from self._span(start, end, choose, all_faces)
            if last:
                return
            start = end - overlap
            for stream in (self._crops, self._sound):
                if stream is not None:
                    stream.forget(start)

    def _open_video(self, source: Source, size: int, mean_face: MeanFace) -> Crops | None:
        views = _views(VideoReader(source, keep_bytes=0)) if isinstance(source, Path) else map(_view, source)
        try:
            first = list(islice(views, 1))
            if first and max(first[0].gray().shape) <= LARGEST_CROP:
                first += islice(views, LOOKED_AT.stop - 1)
        except MissingStreamError:
            return None
        mesh = FaceMesh()
        self.cropped = self.cropped or are_mouth_crops([view.rgb() for view in first[LOOKED_AT]], mesh)
        views = chain(first, views)
        return ReadyCrops(views, size) if self.cropped else FaceCrops(views, size, mean_face, mesh)

    def _read(self, to: int) -> tuple[int, bool]:
        """Read to a frame; returns the frame that was reached, and whether the recording ends there."""
        there = [stream for stream in (self._crops, self._sound) if stream is not None]
        for stream in there:
            stream.advance(to + OVERLAP + 1)
        end = max(stream.count for stream in there)
        if self._crops is not None and self._crops.ended and end - self._crops.count < FRAME_RATE:
            end = self._crops.count  # codecs lengthen the sound
        last = all(stream.ended for stream in there) and end <= to + OVERLAP
        return end if last else to, last

    def _pause(self, start: int, end: int) -> int | None:
        """Middle of the longest pause of the sound, in frames after ``start``; None: there is none."""
        if self._sound is None:
            return None
        loudness = np.expm1(frame_energy(self._sound.between(start, end), end - start))
        loud = float(np.percentile(loudness, 90))
        if loud < SILENCE:
            return None
        first = round(EARLIEST_CUT * len(loudness))
        quiet = loudness[first:] < PAUSE_LEVEL * loud
        edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(int))).reshape(-1, 2)
        pauses = [(high - low, (high + low) // 2) for low, high in edges.tolist() if high - low >= PAUSE]
        return first + max(pauses)[1] if pauses else None

    def _span(self, start: int, end: int, choose: Choice, all_faces: bool) -> Iterator[Part]:
        for piece in self._pieces(start, end, choose, all_faces):
            self._count(piece)
            samples = None if self._sound is None else self._sound.between(piece.start, piece.end)
            if samples is not None:
                samples = fit_to_frames(samples, piece.end - piece.start) if len(samples) else None
            if piece.end - piece.start >= MIN_FRAMES and not (samples is None and piece.crops is None):
                yield Part(piece.start / FRAME_RATE, piece.crops, samples, piece.face)

    def _count(self, piece: FaceSpan) -> None:
        self._frames += piece.end - piece.start
        if piece.crops is not None:
            self._seen += piece.end - piece.start
            return
        start, end = piece.start / FRAME_RATE, piece.end / FRAME_RATE
        if self.lost and start <= self.lost[-1][1]:
            start, _ = self.lost.pop()
        self.lost.append((start, end))

    def _pieces(self, start: int, end: int, choose: Choice, all_faces: bool) -> Iterator[FaceSpan]:
        if self._crops is None:
            yield FaceSpan(start, end)
            return
        shown = max(start, min(end, self._crops.count))  # up to where there is video
        if all_faces:
            for number in self._crops.faces(start, shown):
                pieces = self._crops.pieces(start, shown, self._choice(number))
                yield from (piece for piece in pieces if piece.crops is not None)
            return
        if shown > start:
            yield from self._crops.pieces(start, shown, choose)
        if end > shown:
            yield FaceSpan(shown, end)

    def _choice(self, face: str | int) -> Choice:
        """How one of the faces of a span is chosen."""
        if face not in FACE_RULES and not (isinstance(face, int) and face >= 1):
            raise DataError(f"face is {face!r}; take {', '.join(FACE_RULES)}, or a number from 1")

        def choose(faces: Sequence[Face], start: int, end: int) -> Face | None:
            faces = [one for one in faces if face in (one.number, *FACE_RULES)]
            tracks = [one.track.between(start, end) for one in faces]
            if face == SPEAKER:
                sound = np.zeros(0, np.int16) if self._sound is None else self._sound.between(start, end)
                best = choose_speaker(tracks, frame_energy(sound, end - start))
            else:
                longest = max(map(len, tracks), default=0)
                seen = [track for track in tracks if len(track) >= LASTING * longest]
                best = max(seen, key=partial(_rating, rule=face), default=None)
            return next((one for one, track in zip(faces, tracks, strict=True) if track is best), None)

        return choose


class _Sound:
    """Samples that are read bit by bit; positions are frames of 640 samples."""

    def __init__(self, pieces: Iterable[Samples]) -> None:
        self.ended, self.silent = False, True
        self._pieces = iter(pieces)
        self._held = np.zeros(0, np.int16)
        self._first = 0  # frame at which the held samples begin

    @property
    def count(self) -> int:
        return self._first - (-len(self._held) // SAMPLES_PER_FRAME)

    def advance(self, to: int) -> None:
        pieces, wanted = [self._held], (to - self._first) * SAMPLES_PER_FRAME - len(self._held)
        while wanted > 0 and not self.ended:
            piece = next(self._pieces, None)
            self.ended = piece is None
            if piece is not None:
                self.silent = self.silent and (not len(piece) or Sound(piece).silent)
                pieces.append(piece)
                wanted -= len(piece)
        self._held = np.concatenate(pieces)

    def between(self, start: int, end: int) -> Samples:
        low, high = ((frame - self._first) * SAMPLES_PER_FRAME for frame in (start, end))
        return self._held[low:high]

    def forget(self, before: int) -> None:
        self._held = self.between(before, self.count)
        self._first = before


@dataclass(frozen=True)
class MouthCrops:
    """Crops of a recording.

    Args:
        frames: ``[T, S, S]``, uint8, grayscale, 25 Hz; where no face is seen, the nearest crop is repeated.
        samples: sound ``[640 * T]``, int16, 16 kHz, mono; None without sound.
        seen: ``[T]``, whether the face was seen.
    """

    frames: NDArray[np.uint8]
    samples: NDArray[np.int16] | None
    seen: NDArray[np.bool_]

    @property
    def face_share(self) -> float:
        """Share of the frames in which the face was seen, 0 to 1."""
        return float(self.seen.mean())


def crop_recording(
    source: RecordingLike,
    sound: RecordingLike | None = None,
    face: str | int = SPEAKER,
    size: int = 96,
) -> MouthCrops:
    """All mouth crops of a recording; see ``Recording`` and ``Recording.parts``.

    Raises:
        DataError: the recording cannot be read, no face is seen in it, or the size is none.
    """
    if not (isinstance(size, (int, np.integer)) and size >= SMALLEST_CROP):
        raise DataError(f"size is {size!r}; give the side of the crops, at least {SMALLEST_CROP} pixels")
    recording = Recording(source, sound, ("video",), size=size)
    crops: dict[int, Frame] = {}
    samples: dict[int, Samples] = {}
    for part in recording.parts(face):
        start = round(part.start * FRAME_RATE)
        if part.frames is not None:
            crops.update(enumerate(part.frames, start))
        if part.samples is not None:
            samples.update(enumerate(part.samples.reshape(-1, SAMPLES_PER_FRAME), start))
    if not crops:
        raise NoFaceError(recording.name, face)
    length = recording.video_frames
    frames = filled(crops, 0, length)
    silence = np.zeros(SAMPLES_PER_FRAME, np.int16)
    heard = np.concatenate([samples.get(frame, silence) for frame in range(length)]) if samples else None
    return MouthCrops(frames, heard, np.array([frame in crops for frame in range(length)]))


class NoFaceError(MediaError):
    """No usable face was seen in a recording."""

    def __init__(self, name: str, face: str | int) -> None:
        wanted = f"face {face}" if isinstance(face, int) else "a face"
        super().__init__(
            f"{name}: {wanted} is seen in no part of it, and it holds no mouth crops; name a recording in "
            "which a face is seen from the front"
        )


def _rating(track: Track, rule: str | int) -> float:
    if rule in (LEFT, RIGHT):
        return float(track.centre[0]) * (-1 if rule == LEFT else 1)
    return track.width if rule == LARGEST else len(track)


def _open_sound(source: Source) -> _Sound | None:
    if isinstance(source, np.ndarray):
        return _Sound([source.astype(np.int16, copy=False)]) if source.ndim == 1 else None
    pieces = _audio_pieces(source)
    try:
        return _Sound(chain([next(pieces)], pieces))
    except MissingStreamError:
        return None


def _audio_pieces(path: Path) -> Iterator[Samples]:
    """The samples of a file, those of a long one bit by bit."""
    seconds = stated_seconds(path) or 0.0
    if seconds <= WHOLE:
        yield read_audio(path)
        return
    silent = 0  # blocks without packets: silence, if there is sound after them
    for start in count(0, BLOCK):
        samples = read_audio(path, span=(start, start + BLOCK))
        if not len(samples):
            silent += 1
        else:
            yield from repeat(np.zeros(BLOCK * SAMPLE_RATE, np.int16), silent)
            silent = 0
            # Before the end, packets may be missing at the end of a block.
            yield fit_to_frames(samples, BLOCK * FRAME_RATE) if start + BLOCK < seconds else samples
        if start + BLOCK >= seconds and silent:
            return


def _is_sound(source: Source) -> bool:
    return isinstance(source, np.ndarray) and source.ndim == 1


def name_of(given: RecordingLike) -> str:
    """How messages name it."""
    return str(given) if isinstance(given, (str, os.PathLike)) else "the array"


def as_source(given: RecordingLike) -> Path | NDArray[Any]:
    """A path, or an array as the package has them: frames uint8, samples int16; MediaError for others."""
    name = name_of(given)
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if path.suffix != ".npy":
            return path
        try:
            given = mapped_array(path)
        except (OSError, ValueError) as error:
            raise MediaError(f"{name}: cannot be read as an array ({error}); replace or remove it") from error
    try:
        array = np.asarray(given)
    except ValueError as error:  # a list of arrays of several shapes
        raise MediaError(f"{name}: is a {type(given).__name__} that makes no array; {KINDS}") from error
    if array.ndim == 1 and array.dtype == np.int16:
        return array
    if array.ndim == 1 and np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or np.abs(array).max(initial=0) > LOUDEST_ARRAY:
            raise MediaError(
                f"{name}: floating-point samples are not finite, or lie beyond -1 to 1; divide them by 32768 "
                "if their scale is that of int16"
            )
        return np.round(np.clip(array, -1, 1) * 32767).astype(np.int16)
    frames = array.size and array.dtype == np.uint8 and array.ndim in (3, 4)
    if frames and array.shape[3:] in ((), (3,)) and array.shape[2] != 3:  # 3: an image [H, W, 3]
        return array
    kind = f"{array.dtype} {list(array.shape)}" if array.ndim else f"of the type {type(given).__name__}"
    raise MediaError(f"{name}: is {kind}; {KINDS}")


def _views(reader: VideoReader) -> Iterator[View]:
    for stored in reader.stored_frames():
        yield View(partial(reader.show, stored, gray=True), partial(reader.show, stored))


def _view(frame: Frame) -> View:
    if frame.ndim == 2:
        return View(lambda: np.asarray(frame), lambda: np.repeat(frame[..., None], 3, axis=2))
    gray = partial(cv2.cvtColor, np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return View(lambda: np.asarray(gray(), np.uint8), lambda: np.ascontiguousarray(frame))
