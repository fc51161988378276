"""Audio of media files to 16 kHz mono, and back."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from av_ssl.io import write_atomically
from av_ssl.layout import SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.media.container import MissingStreamError, open_media, start_seconds

Samples = NDArray[np.int16]


def read_audio(path: Path, rate: int = SAMPLE_RATE) -> Samples:
    """Mono samples ``[N]``, int16, at ``rate`` Hz, from the start of the file's earliest stream.

    Silence is inserted where the audio starts later. Channels are averaged and the rate is changed as the
    ffmpeg command does with ``-ac 1 -ar 16000``, bit for bit. Raises MissingStreamError or MediaError.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            raise MissingStreamError(path, "audio")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        lead = 0.0
        if stream.start_time is not None and stream.time_base:
            lead = stream.start_time * float(stream.time_base) - start_seconds(container)
        # s16, because the resampler sums channels at 0.707 each when it works in floating point.
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        pieces = [np.zeros(round(lead * rate), np.int16)]
        for frame in container.decode(stream):
            frame.pts = None  # the resampler rejects broken time stamps; the order suffices
            pieces += map(_samples, resampler.resample(frame))
        if len(pieces) > 1:
            pieces += map(_samples, resampler.resample(None))
    return np.concatenate(pieces)


def _samples(frame: av.AudioFrame) -> Samples:
    return np.asarray(frame.to_ndarray(), np.int16).reshape(-1)


def read_plain_wav(path: Path, start: int = 0, length: int | None = None) -> Samples | None:
    """Samples ``[N]`` of a 16 kHz mono 16-bit wav, much faster than FFmpeg; None for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            if not _is_plain(file):
                return None
            file.setpos(min(start, file.getnframes()))
            count = file.getnframes() if length is None else length
            return np.frombuffer(file.readframes(count), "<i2").astype(np.int16)
    except (wave.Error, EOFError, FileNotFoundError):
        return None


def plain_wav_length(path: Path) -> int | None:
    """Number of samples in a 16 kHz mono 16-bit wav, by its header; None for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() if _is_plain(file) else None
    except (wave.Error, EOFError, FileNotFoundError):
        return None


def _is_plain(file: wave.Wave_read) -> bool:
    return (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)


def fit_to_frames(samples: Samples, frames: int) -> Samples:
    """Cut ``samples`` ``[N]``, or pad them with silence, to exactly 640 a video frame."""
    wanted = frames * SAMPLES_PER_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def frame_energy(samples: Samples, frames: int) -> NDArray[np.float32]:
    """Log energy ``[T]`` of the audio of each video frame."""
    blocks = fit_to_frames(samples, frames).reshape(frames, SAMPLES_PER_FRAME).astype(np.float32)
    return np.log1p(np.sqrt(np.mean(blocks**2, axis=1)))


def write_audio(path: Path, samples: Samples, rate: int = SAMPLE_RATE) -> None:
    """Write mono ``samples`` ``[N]`` int16 as a wav file; raises MediaError when it cannot be written."""
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise ValueError(f"samples must be int16 [N], not {samples.dtype} {list(samples.shape)}")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    write_atomically(path, buffer.getvalue())
