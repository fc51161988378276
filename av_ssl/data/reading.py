"""The files of a clip as arrays: waveform and mouth crops, at 16 kHz and 25 Hz, and audio features at 25 Hz.

Audio features are a log mel filterbank at 100 Hz, four frames stacked to one at 25 Hz. The filterbank is that
of `python_speech_features.logfbank` with its defaults, which published models were trained on (AV-HuBERT, Shi
et al., 2022). Models of raw audio get the samples of each video frame.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_ssl.data.mel import mel_corners, triangles
from av_ssl.errors import MediaError
from av_ssl.io import POINTER, existing, is_pointer, mapped_array, wav_fault
from av_ssl.layout import FRAME_RATE, LOUDEST, SAMPLE_RATE, SAMPLES_PER_FRAME

OGG_START = b"OggS\0\2"
"""Start of the first page of a stream."""


def read_wave(path: Path) -> NDArray[np.int16]:
    """Samples `[N]`, int16; those of floating-point files, full scale 1, are scaled to the range of int16.

    Raises MediaError if the file cannot be read, is empty, is not 16 kHz mono, or its floating-point samples
    are not on a scale of 1.
    """
    path = existing(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            if (file.samplerate, file.channels) != (SAMPLE_RATE, 1):
                raise MediaError(
                    f"{path}: has {file.samplerate} Hz and {file.channels} channel(s), needed are "
                    f"{SAMPLE_RATE} Hz and 1; convert it: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
                )
            # Libsndfile lets loud samples of decoders in floating point wrap around, if asked for integers.
            is_float = file.subtype in ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
            wave = file.read(dtype="float64" if is_float else "int16")
    except (soundfile.SoundFileError, OSError) as error:
        reason = POINTER if is_pointer(path) else error
        raise MediaError(f"{path}: cannot be read as audio ({reason})") from error
    if not len(wave):
        raise MediaError(f"{path}: holds no samples")
    if fault := wav_fault(path) or _ogg_fault(path):
        raise MediaError(f"{path}: {fault}")
    return _to_int16(path, wave) if is_float else np.asarray(wave, np.int16)


def _ogg_fault(path: Path) -> str:
    """What libsndfile passes over in a chained Ogg file; empty: nothing."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS" or file.read().count(OGG_START) < 1:
            return ""
    return "holds several Ogg streams in a row; join them: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"


def _to_int16(path: Path, wave: NDArray[np.float64]) -> NDArray[np.int16]:
    peak = float(np.abs(wave).max())
    if not peak <= LOUDEST:  # also if it is no number
        raise MediaError(
            f"{path}: has floating-point samples up to {peak:g}, full scale is 1; scale them, or write the "
            "file as 16-bit integers"
        )
    scaled = np.rint(wave * 32768).clip(-32768, 32767)
    return scaled.astype(np.int16)


def read_crops(path: Path) -> NDArray[np.uint8]:
    """Grayscale frames `[T, H, W]` uint8 of a video file, or of an `.npy` file (memory-mapped, read-only).

    Raises MediaError if the file cannot be read, holds no frames, or has not 25 frames a second.
    """
    path = existing(path)
    frames = _read_array(path) if path.suffix == ".npy" else _decode(path)
    if not len(frames):
        raise MediaError(
            f"{path}: holds no video frames, it is damaged or of another format; make the crop again"
        )
    return frames


def _read_array(path: Path) -> NDArray[np.uint8]:
    try:
        frames = mapped_array(path)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read as an array ({error})") from error
    if frames.dtype != np.uint8 or frames.ndim != 3:
        raise MediaError(
            f"{path}: is {frames.dtype} of shape {frames.shape}, needed is uint8 [frames, height, width]"
        )
    return frames


RATE_TOLERANCE = 0.05
"""Frames a second: a clip of 20 s drifts by a frame."""


def _decode(path: Path) -> NDArray[np.uint8]:
    # One thread: more are slower on clips this small, and workers share the cores.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            reason = "no decoder supports it" if path.is_file() else "there is no such file"
            reason = POINTER if is_pointer(path) else reason
            raise MediaError(f"{path}: cannot be opened as video ({reason})")
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        if rate > 0 and abs(rate - FRAME_RATE) > RATE_TOLERANCE:
            raise MediaError(
                f"{path}: has {rate:.2f} frames a second, needed are {FRAME_RATE}; crop the video again: "
                "av-ssl crop"
            )
        frames = []
        while True:
            decoded, frame = capture.read()
            if not decoded:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    finally:
        capture.release()
    return np.stack(frames).astype(np.uint8, copy=False) if frames else np.empty((0, 0, 0), np.uint8)


FILTERS = 26
STACK = 4
FEATURE_DIM = FILTERS * STACK
WINDOW = 400
"""25 ms in samples."""
HOP = 160
"""10 ms in samples."""
FFT_SIZE = 512
PRE_EMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float64).eps)
"""Replaces an energy of exactly zero before the logarithm."""


@cache
def mel_filters() -> Tensor:
    """Triangular filters `[257, 26]` float32, equally wide in mel between 0 and 8000 Hz."""
    hertz = mel_corners(FILTERS, 0, SAMPLE_RATE / 2)
    bins = np.arange(FFT_SIZE // 2 + 1)
    return torch.from_numpy(triangles(bins, np.floor((FFT_SIZE + 1) * hertz / SAMPLE_RATE)))


def log_filterbank(wave: NDArray[np.int16]) -> NDArray[np.float32]:
    """Log mel energies `[n, 26]` at 100 Hz of 16 kHz samples `[N]`, N > 0, on the int16 scale.

    25 ms rectangular windows every 10 ms; n = 1 + ceil((N - 400) / 160), at least 1; the last window is
    padded with zeros.
    """
    x = torch.from_numpy(np.asarray(wave, np.float32))
    x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
    frames = 1 + max(0, math.ceil((len(x) - WINDOW) / HOP))
    x = torch.nn.functional.pad(x, (0, (frames - 1) * HOP + WINDOW - len(x))).unfold(0, WINDOW, HOP)
    power = torch.fft.rfft(x, FFT_SIZE).abs().square() / FFT_SIZE
    energy = power @ mel_filters()
    return torch.where(energy == 0, ENERGY_FLOOR, energy).log().numpy()


def stack_frames(x: NDArray[np.float32], count: int = STACK) -> NDArray[np.float32]:
    """`[n, C]` -> `[ceil(n / count), count * C]`, frame-major, the end padded with zeros."""
    padded = np.pad(x, ((0, -len(x) % count), (0, 0)))
    return padded.reshape(-1, count * x.shape[1])


def normalize_frames(x: NDArray[np.float32], eps: float = 1e-5) -> NDArray[np.float32]:
    """Layer norm of each row, without learned scale; a row of zeros stays zero."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + np.float32(eps))


def audio_features(wave: NDArray[np.int16], frames: int | None, normalize: bool) -> NDArray[np.float32]:
    """Stacked filterbanks `[T, 104]` at 25 Hz of int16 samples `[N]`.

    T is `frames`, the number of decoded video frames: rows of zeros are appended or rows dropped at the end;
    None: as many as the audio gives, ceil(n / 4). `normalize` is a layer norm of each frame after that.
    """
    features = stack_frames(log_filterbank(wave))
    if frames is not None:
        features = np.pad(features[:frames], ((0, max(0, frames - len(features))), (0, 0)))
    return normalize_frames(features) if normalize else features


def frame_waveform(wave: NDArray[np.int16], frames: int | None) -> NDArray[np.int16]:
    """Samples `[T, 640]` int16 at 25 Hz, neither scaled nor normalised (RAVEn, Haliassos et al., 2023).

    T is `frames`, the number of decoded video frames: silence is appended or samples dropped at the end;
    None: as many complete frames as the audio gives, floor(N / 640).
    """
    if frames is None:
        frames = len(wave) // SAMPLES_PER_FRAME
    wanted = frames * SAMPLES_PER_FRAME
    if len(wave) < wanted:
        wave = np.pad(wave, (0, wanted - len(wave)))
    return wave[:wanted].reshape(frames, SAMPLES_PER_FRAME)
