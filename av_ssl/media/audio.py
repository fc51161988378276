"""Audio of media files to 16 kHz mono, and back."""

from __future__ import annotations

import contextlib
import io
import wave
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from av_ssl.errors import MediaError
from av_ssl.io import write_atomically
from av_ssl.layout import LOUDEST, SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.media.container import MissingStreamError, Span, decoded, open_media, start_seconds
from av_ssl.media.sound_clock import LEAST_LOUD, QUIET, Run, Samples, Sound, place

PREROLL = 1.0  # seconds before a part, so that the decoder has settled
SPECIAL = (
    Disposition.comment
    | Disposition.karaoke
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.descriptions
)


def read_audio(path: Path, rate: int = SAMPLE_RATE, span: Span | None = None) -> Samples:
    """Mono samples ``[N]``, int16, of a file or a part of it; see ``read_sound``."""
    return read_sound(path, rate, span).samples


def chosen_track(path: Path) -> str:
    """The audio track that ``read_sound`` reads, such as ``2 of 3``; empty where there are not several."""
    with open_media(path) as container:
        tracks = len(container.streams.audio)
        return f"{_track(path, container) + 1} of {tracks}" if tracks > 1 else ""


def read_sound(path: Path, rate: int = SAMPLE_RATE, span: Span | None = None) -> Sound:
    """Audio at ``rate`` Hz from the start of the file's earliest stream, placed by its time stamps.

    Silence is inserted where the audio starts later and where packets are missing; audio whose clock runs
    at another speed is stretched. Of several tracks the first one with sound is read. Channels are averaged
    and the rate is changed as the ffmpeg command does with ``-ac 1 -ar 16000``, bit for bit.

    Args:
        path: the file.
        rate: Hz.
        span: start and end in seconds of the part to read; None reads all.

    Raises:
        MissingStreamError: the file has no audio.
        MediaError: it cannot be decoded, or its time stamps go back.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            raise MissingStreamError(path, "audio")
        stream = container.streams.audio[_track(path, container)]
        start, end, sought = start_seconds(container), float("inf"), False
        if span is not None:
            start, end = start + span[0], span[1] - span[0]
            if stream.time_base and span[0] > PREROLL:  # mp3 and others refuse a place before their start
                container.seek(int((start - PREROLL) / stream.time_base), stream=stream)
                sought = True
        runs = _runs(path, container, stream, rate, start, end, sought)
    # After a seek a place may not be known, and in MPEG program streams it may lie behind the one asked for.
    if span is not None and sought and any(np.isnan(run.times).any() or run.times[0] > 0 for run in runs[:1]):
        sound = read_sound(path, rate)
        first, last = (round(seconds * rate) for seconds in span)
        return replace(sound, samples=sound.samples[first:last])
    try:
        sound = place(runs)
    except ValueError as error:
        raise MediaError(f"{path}: {error}") from error
    return sound if span is None else replace(sound, samples=sound.samples[: round(end * rate)])


def _runs(
    path: Path,
    container: InputContainer,
    stream: AudioStream,
    rate: int,
    start: float,
    end: float,
    sought: bool,
) -> list[Run]:
    """The samples of a track, a run for each format, with time stamps in seconds after ``start``."""
    stream.codec_context.thread_count = 1
    runs: list[Run] = []
    resampler, kind = None, None
    for frame in decoded(container, stream, sought):
        time = None
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - start
            if time > end:
                break
        now = frame.format.name, frame.layout.name, frame.sample_rate
        if resampler is None or now != kind:
            if resampler is not None:
                runs[-1].pieces += map(_samples, resampler.resample(None))
            # s16, because the resampler sums channels at 0.707 each when it works in floating point.
            resampler, kind = av.AudioResampler(format="s16", layout="mono", rate=rate), now
            runs.append(Run(rate))
        if stream.codec_context.name.startswith("pcm_f"):
            _check_scale(path, frame)
        runs[-1].stamp(time, frame.samples / frame.sample_rate)
        frame.pts = None  # the resampler rejects broken time stamps
        runs[-1].pieces += map(_samples, resampler.resample(frame))
    if resampler is not None:
        runs[-1].pieces += map(_samples, resampler.resample(None))
    return runs


def _check_scale(path: Path, frame: av.AudioFrame) -> None:
    peak = float(np.abs(frame.to_ndarray()).max(initial=0))
    if not peak <= LOUDEST:  # also if it is no number
        raise MediaError(
            f"{path}: has floating-point samples up to {peak:g}, full scale is 1; scale them, or write the "
            "file as 16-bit integers"
        )


def _samples(frame: av.AudioFrame) -> Samples:
    return np.asarray(frame.to_ndarray(), np.int16).reshape(-1)


def _track(path: Path, container: InputContainer) -> int:
    """Number of the audio track to read: the first one with sound; those for special purposes come last."""
    kinds = [Disposition(stream.disposition) for stream in container.streams.audio]
    if len(kinds) == 1:
        return 0
    order = sorted(
        range(len(kinds)), key=lambda k: (bool(kinds[k] & SPECIAL), not kinds[k] & Disposition.default)
    )
    status = path.stat()
    return _first_with_sound(path, tuple(order), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _first_with_sound(path: Path, order: tuple[int, ...], size: int, changed: int) -> int:
    """The first track of ``order`` with sound, else its first; size and time of change name the file."""
    return next((number for number in order if _has_sound(path, number)), order[0])


def _has_sound(path: Path, number: int) -> bool:
    """Whether 0.2 s of a track are louder than -60 dB of full scale; decodes no more than needed."""
    loud = 0.0
    with contextlib.suppress(MediaError), open_media(path) as container:
        for frame in container.decode(container.streams.audio[number]):
            values = np.asarray(frame.to_ndarray())
            full = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype.name).max)
            loud += frame.samples / frame.sample_rate * (values.std() > full * QUIET)
            if loud >= LEAST_LOUD:
                return True
    return False


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
