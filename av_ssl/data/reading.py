"""Reading one clip: a waveform, mouth crops.  Files were brought to 16 kHz and 25 Hz by preprocessing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from av_ssl.errors import MediaError

SAMPLE_RATE = 16000
"""Audio samples a second."""
FRAME_RATE = 25
"""Video frames a second: the unit of a clip's length."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

# numpy reads the head of a file as a Python literal, at which Python 3.11 at times fails when several threads
# do so at once (https://github.com/python/cpython/issues/106905).
_READING_HEAD = threading.Lock()


def read_wave(path: Path) -> NDArray[np.int16]:
    """Samples `[N]` as stored, int16 (not scaled to +-1).

    Raises MediaError when the file cannot be read, is empty, or is not 16 kHz mono.
    """
    try:
        wave, rate = soundfile.read(str(path), dtype="int16")
    except (soundfile.SoundFileError, OSError) as error:
        raise MediaError(f"{path}: cannot be read as audio ({error})") from error
    if rate != SAMPLE_RATE or wave.ndim != 1:
        channels = 1 if wave.ndim == 1 else wave.shape[1]
        raise MediaError(
            f"{path}: has {rate} Hz and {channels} channel(s), needed are 16000 Hz and 1; "
            "convert it: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
        )
    if not len(wave):
        raise MediaError(f"{path}: holds no samples")
    return np.asarray(wave, np.int16)


def read_crops(path: Path) -> NDArray[np.uint8]:
    """Grey frames `[T, H, W]` uint8 of a video file, or of an `.npy` file (memory-mapped, read-only).

    Raises MediaError when the file cannot be read or holds no frames.
    """
    frames = _read_array(path) if path.suffix == ".npy" else _decode(path)
    if not len(frames):
        raise MediaError(
            f"{path}: holds no video frames; make the crop again, the file is damaged or of another kind"
        )
    return frames


def mapped_array(path: Path) -> NDArray[Any]:
    """The array of an `.npy` file, memory-mapped, read-only; several threads may call this at once.

    Raises OSError or ValueError when the file is none.
    """
    with _READING_HEAD:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


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


def _decode(path: Path) -> NDArray[np.uint8]:
    # One thread: on clips this small more threads cost more than they bring, and workers share the cores
    # anyway.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            reason = "no decoder knows it" if path.is_file() else "there is no such file"
            raise MediaError(f"{path}: cannot be opened as video ({reason})")
        frames = []
        while True:
            decoded, frame = capture.read()
            if not decoded:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    finally:
        capture.release()
    return np.stack(frames).astype(np.uint8, copy=False) if frames else np.empty((0, 0, 0), np.uint8)
