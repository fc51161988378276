"""What the model gets of a clip: its files, cut, distorted and brought to 25 frames a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.augment import CropAndFlip
from av_ssl.data.collate import AudioFrames, Sample
from av_ssl.data.features import audio_features
from av_ssl.data.manifest import Clip
from av_ssl.data.noise import NoiseMixer
from av_ssl.data.reading import FRAME_RATE, SAMPLE_RATE, read_crops, read_wave
from av_ssl.data.spans import BoolArray
from av_ssl.data.time_masking import TimeMask
from av_ssl.data.waveform import frame_waveform
from av_ssl.errors import DataError, MediaError

AUDIO_INPUTS = ("filterbank", "waveform")
STREAMS = {"audio": ("audio",), "video": ("video",), "av": ("audio", "video")}


@dataclass(frozen=True)
class ClipReader:
    """Reads clips.

    Args:
        crop: of the pictures.
        modalities: streams to load, of `audio` and `video`.
        audio_input: `filterbank` (see `audio_features`) or `waveform` (see `frame_waveform`).
        normalize: layer norm of each filterbank frame.
        noise: added to the audio.
        clean_audio: with `noise`, also give the audio without it (`audio_clean`), for a teacher.
        clean_waveform: give the raw samples, too, whatever `modalities` says: for a speech teacher.
        audio_time_mask, video_time_mask: stretches that are silent, or grey.

    Raises ValueError when an argument is unknown.
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
        if self.audio_input not in AUDIO_INPUTS:
            raise ValueError(
                f"audio_input is {self.audio_input!r}; it must be one of {', '.join(AUDIO_INPUTS)}"
            )

    def check_streams(self, clips: Sequence[Clip]) -> None:
        """Raise DataError when a clip lacks a stream that is to be loaded."""
        for clip in clips:
            for stream in self.modalities:
                if getattr(clip, stream) is None:
                    raise DataError(
                        f"clip {clip.id} (line {clip.line} of its manifest) has no {stream}; "
                        f"fill in the column, or leave {stream} out of modalities"
                    )
            if self.clean_waveform and clip.audio is None:
                raise DataError(
                    f"clip {clip.id} (line {clip.line} of its manifest) has no audio, which the teachers "
                    "hear; fill in the column, or take teachers' targets from disk"
                )

    def read(self, index: int, clip: Clip, labels: Sequence[Tensor], rng: np.random.Generator) -> Sample:
        """The clip as a sample with this index and these labels; raises MediaError when it cannot be read."""
        video = self._read_video(clip, rng) if "video" in self.modalities else None
        audio, clean, grey, waveform = None, None, None, None
        wave = self._read_wave(clip)
        if wave is not None and "audio" in self.modalities:
            audio, clean = self._hear(clip, wave, None if video is None else len(video), rng)
            audio = self._silence(audio, rng)
        if wave is not None and self.clean_waveform:
            stream = audio if video is None else video
            assert stream is not None
            waveform = frame_waveform(wave, len(stream))
        if video is not None and self.video_time_mask is not None:
            grey = self.video_time_mask.draw(len(video), FRAME_RATE, rng)
        return Sample(index, clip.id, audio, clean, video, labels, grey, waveform)

    def _read_video(self, clip: Clip, rng: np.random.Generator) -> NDArray[np.uint8]:
        assert clip.video is not None
        frames = read_crops(clip.video)
        try:
            crop = self.crop.draw(frames.shape[1], frames.shape[2], rng)
        except MediaError as error:
            raise MediaError(f"{clip.video}: {error}") from error
        return self.crop.apply(frames, crop)

    def _read_wave(self, clip: Clip) -> NDArray[np.int16] | None:
        if "audio" not in self.modalities and not self.clean_waveform:
            return None
        assert clip.audio is not None
        return read_wave(clip.audio)

    def _hear(
        self, clip: Clip, clean: NDArray[np.int16], frames: int | None, rng: np.random.Generator
    ) -> tuple[AudioFrames, AudioFrames | None]:
        """The audio as the student hears it, and without noise where that is wanted."""
        heard = clean if self.noise is None else self.noise.mix(clean, rng)
        audio = self._framed(heard, frames)
        if not len(audio):
            raise MediaError(
                f"{clip.audio}: holds {len(clean)} samples, less than a video frame of 40 ms; take the clip "
                "out of the manifest"
            )
        if self.noise is None or not self.clean_audio:
            return audio, None
        return audio, audio if heard is clean else self._framed(clean, frames)

    def _framed(self, wave: NDArray[np.int16], frames: int | None) -> AudioFrames:
        if self.audio_input == "waveform":
            return frame_waveform(wave, frames)
        return audio_features(wave, frames, self.normalize)

    def _silence(self, audio: AudioFrames, rng: np.random.Generator) -> AudioFrames:
        """A copy with the masked stretches at zero: of single samples in waveforms, of frames in features."""
        if self.audio_time_mask is None:
            return audio
        mask: BoolArray
        if self.audio_input == "waveform":
            mask = self.audio_time_mask.draw(audio.size, SAMPLE_RATE, rng).reshape(audio.shape)
        else:
            mask = self.audio_time_mask.draw(len(audio), FRAME_RATE, rng)[:, None]
        return np.where(mask, audio.dtype.type(0), audio)
