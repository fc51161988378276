"""From a clip's files to a sample: frames cropped and flipped, audio with noise, at 25 frames a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.collate import AudioFrames, Sample
from av_ssl.data.noise import NoiseMixer
from av_ssl.data.reading import audio_features, frame_waveform, read_crops, read_wave
from av_ssl.data.spans import BoolArray, check_choice
from av_ssl.errors import DataError, MediaError
from av_ssl.layout import FRAME_RATE, LARGEST_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME, crop_side
from av_ssl.manifest import Clip


@dataclass(frozen=True)
class ArrayClip(Clip):
    """A clip in memory: `video` and `audio` say where it is from, `pixels` and `wave` are read."""

    pixels: NDArray[np.uint8] | None = field(default=None, compare=False)
    wave: NDArray[np.int16] | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, id: str, pixels: NDArray[np.uint8] | None, wave: NDArray[np.int16] | None, origin: str = "a clip"
    ) -> ArrayClip:
        """Of mouth crops `[T, H, W]` at 25 Hz, samples `[N]` at 16 kHz, or both; errors name `origin`."""
        samples = 0 if wave is None else len(wave)
        frames = samples // SAMPLES_PER_FRAME if pixels is None else len(pixels)
        video, audio = (None if stream is None else Path(origin) for stream in (pixels, wave))
        return cls(id, video, audio, frames, samples, line=0, pixels=pixels, wave=wave)


def frames_of(clip: Clip) -> NDArray[np.uint8]:
    """The mouth crops of a clip, see `read_crops`."""
    if isinstance(clip, ArrayClip) and clip.pixels is not None:
        return clip.pixels
    assert clip.video is not None
    return read_crops(clip.video)


def samples_of(clip: Clip) -> NDArray[np.int16]:
    """The sound of a clip, see `read_wave`."""
    if isinstance(clip, ArrayClip) and clip.wave is not None:
        return clip.wave
    assert clip.audio is not None
    return read_wave(clip.audio)


class Crop(NamedTuple):
    """Upper left corner in pixels, and whether left and right are swapped, for all frames of a clip."""

    top: int
    left: int
    flip: bool


@dataclass(frozen=True)
class CropAndFlip:
    """Crops frames to squares of `size` pixels: at the centre, or if `random` anywhere and flipped at times.

    It slices: frames stay uint8 and are copied once, into the batch.
    """

    size: int = 88
    random: bool = False
    flip_probability: float = 0.5

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Crop:
        """The part of frames to cut; MediaError if they are smaller, or too large to be mouth crops."""
        free_rows, free_columns = height - self.size, width - self.size
        if min(free_rows, free_columns) < 0:
            raise MediaError(
                f"frames of {width}x{height} pixels are smaller than the crop of {self.size}; "
                "crop the mouth again at 96x96, or lower task.image_crop_size"
            )
        if max(height, width) > LARGEST_FRAME * self.size:
            raise MediaError(
                f"frames of {width}x{height} pixels are no mouth crops for a model of {self.size}, which "
                f"takes {self.size} to {int(LARGEST_FRAME * self.size)}; crop the video: av-ssl crop --size "
                f"{crop_side(self.size)}, or set task.image_crop_size to the model's"
            )
        if not self.random:
            return Crop(round(free_rows / 2), round(free_columns / 2), False)
        top, left = rng.integers(0, [free_rows + 1, free_columns + 1])
        return Crop(int(top), int(left), bool(rng.random() < self.flip_probability))

    def apply(self, video: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
        """A view `[T, size, size]` of `video` `[T, H, W]`; flipped views have a negative stride."""
        view = video[:, crop.top : crop.top + self.size, crop.left : crop.left + self.size]
        return view[:, :, ::-1] if crop.flip else view


@dataclass(frozen=True)
class TimeMask:
    """Time masks of one stream in fine-tuning: one per `stride` seconds, each shorter than `longest` seconds.

    As in SpecAugment (Park et al., 2019), but longer clips have more masks. RAVEn (Haliassos et al., 2023)
    fine-tunes with masks of up to 0.6 s every 2 s (audio) and up to 0.4 s every 1 s (video).
    """

    longest: float
    stride: float

    def __post_init__(self) -> None:
        if self.longest <= 0 or self.stride <= 0:
            raise ValueError(
                f"a time mask of up to {self.longest} s in every {self.stride} s: both must be above 0; "
                "0 for the first turns it off (time_mask_audio, time_mask_video)"
            )

    def draw(self, length: int, rate: int, rng: np.random.Generator) -> BoolArray:
        """Mask bool `[length]` of a stream of `rate` frames or samples a second, True where masked.

        With W = longest * rate, `ceil(length / (stride * rate))` masks have lengths uniform in 0..W-1 and
        starts uniform among those at which they end within the clip; one that would cover an entire short
        clip is left out [ours].
        """
        count = -(-length // max(1, round(self.stride * rate)))
        lengths = rng.integers(0, max(1, round(self.longest * rate)), count)
        lengths = lengths[lengths < length]
        starts = rng.integers(0, length - lengths + 1)
        mask = np.zeros(length, bool)
        for start, end in zip(starts, starts + lengths, strict=True):
            mask[start:end] = True
        return mask


AUDIO_INPUTS = ("filterbank", "waveform")


@dataclass(frozen=True)
class ClipReader:
    """Reads clips.

    Args:
        crop: of the frames.
        modalities: streams to load, of `audio` and `video`.
        audio_input: `filterbank` (see `audio_features`) or `waveform` (see `frame_waveform`).
        normalize: layer norm of each filterbank frame.
        noise: added to the audio.
        clean_audio: with `noise`, also give the audio without it (`audio_clean`), for a teacher.
        clean_waveform: also give the raw samples, for a speech teacher, even if `modalities` has no audio.
        audio_time_mask, video_time_mask: spans that are set to zero, or to the mean gray.
    """

    crop: CropAndFlip
    modalities: tuple[str, ...] = ("audio", "video")
    audio_input: str = "filterbank"
    normalize: bool = True
    noise: NoiseMixer | None = None
    clean_audio: bool = False
    clean_waveform: bool = False
    audio_time_mask: TimeMask | None = None
    video_time_mask: TimeMask | None = None

    def __post_init__(self) -> None:
        if not self.modalities or not {"audio", "video"}.issuperset(self.modalities):
            raise ValueError(f"modalities are {self.modalities}; take audio, video or both")
        check_choice("audio_input", self.audio_input, AUDIO_INPUTS)

    def check_streams(self, clips: Sequence[Clip]) -> None:
        for clip in clips:
            for stream in self.modalities:
                if getattr(clip, stream) is None:
                    raise DataError(
                        f"clip {clip.id} (line {clip.line} of its manifest) has no {stream}; "
                        f"fill in the column, or leave {stream} out of modalities"
                    )
            if self.clean_waveform and clip.audio is None:
                raise DataError(
                    f"clip {clip.id} (line {clip.line} of its manifest) has no audio, which the speech "
                    "teachers take; fill in the column, or use targets on disk (model.teacher_source=disk)"
                )

    def read(self, index: int, clip: Clip, labels: Sequence[Tensor], rng: np.random.Generator) -> Sample:
        """The clip as a sample with this index and these labels; raises MediaError when it cannot be read."""
        video = self._read_video(clip, rng) if "video" in self.modalities else None
        audio = clean = masked = waveform = None
        if "audio" in self.modalities or self.clean_waveform:
            wave = samples_of(clip)
            if "audio" in self.modalities:
                audio, clean = self._audio(clip, wave, None if video is None else len(video), rng)
                audio = self._mask_audio(audio, rng)
            if self.clean_waveform:
                stream = audio if video is None else video
                assert stream is not None
                waveform = frame_waveform(wave, len(stream))
        if video is not None and self.video_time_mask is not None:
            masked = self.video_time_mask.draw(len(video), FRAME_RATE, rng)
        return Sample(index, clip.id, audio, clean, video, labels, masked, waveform)

    def _read_video(self, clip: Clip, rng: np.random.Generator) -> NDArray[np.uint8]:
        frames = frames_of(clip)
        try:
            crop = self.crop.draw(frames.shape[1], frames.shape[2], rng)
        except MediaError as error:
            raise MediaError(f"{clip.video}: {error}") from error
        return self.crop.apply(frames, crop)

    def _audio(
        self, clip: Clip, clean: NDArray[np.int16], frames: int | None, rng: np.random.Generator
    ) -> tuple[AudioFrames, AudioFrames | None]:
        """The student's audio, and the audio without noise if it is wanted."""
        noisy = clean if self.noise is None else self.noise.mix(clean, rng)
        audio = self._framed(noisy, frames)
        if not len(audio) or (frames is None and not len(clean)):
            raise MediaError(
                f"{clip.audio}: has {len(clean)} samples, less than a video frame of 40 ms; remove the clip "
                "from the manifest"
            )
        if self.noise is None or not self.clean_audio:
            return audio, None
        return audio, audio if noisy is clean else self._framed(clean, frames)

    def _framed(self, wave: NDArray[np.int16], frames: int | None) -> AudioFrames:
        if self.audio_input == "waveform":
            return frame_waveform(wave, frames)
        return audio_features(wave, frames, self.normalize)

    def _mask_audio(self, audio: AudioFrames, rng: np.random.Generator) -> AudioFrames:
        """A copy with masked spans at zero: spans of samples in waveforms, of frames in features."""
        if self.audio_time_mask is None:
            return audio
        mask: BoolArray
        if self.audio_input == "waveform":
            mask = self.audio_time_mask.draw(audio.size, SAMPLE_RATE, rng).reshape(audio.shape)
        else:
            mask = self.audio_time_mask.draw(len(audio), FRAME_RATE, rng)[:, None]
        return np.where(mask, audio.dtype.type(0), audio)
