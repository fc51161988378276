"""Small synthetic videos: faces from the photograph that scikit-image ships, tones, noise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from skimage import data

RATE = 16000


@lru_cache
def face() -> np.ndarray:
    """Photograph of one face, RGB `[208, 208, 3]`."""
    return np.ascontiguousarray(data.astronaut()[20:228, 120:328])


def moving_face(frames: int = 12, shift: float = 2.0) -> np.ndarray:
    """The photograph moving to the right by `shift` pixels a frame, `[T, 208, 208, 3]`."""
    images = []
    for frame in range(frames):
        matrix = np.array([[1, 0, shift * frame], [0, 1, 0]], np.float32)
        images.append(cv2.warpAffine(face(), matrix, (208, 208), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(images)


def noise_frames(frames: int = 8) -> np.ndarray:
    """Frames without a face, `[T, 96, 96, 3]`."""
    return np.random.default_rng(0).integers(0, 255, (frames, 96, 96, 3), np.uint8)


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """Sine `[channels, N]` float32."""
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None], channels, 0).astype(np.float32)


def write_clip(
    path: Path,
    images: np.ndarray | None,
    sound: np.ndarray | None,
    fps: float = 25,
    rate: int = RATE,
    times: np.ndarray | None = None,
    turn: int = 0,
) -> Path:
    """Write a video.

    Args:
        path: its suffix decides the container.
        images: RGB frames `[T, H, W, 3]`.
        sound: `[channels, N]`, -1 to 1.
        fps: frames a second.
        rate: of the sound, Hz.
        times: time of each frame in seconds, for a variable rate.
        turn: degrees, counter-clockwise, by which players rotate the frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The table of contents first, as in files for the web: a truncated one can still be opened.
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        video = audio = None
        if images is not None:
            frame_rate = Fraction(fps).limit_denominator(1001)
            video = container.add_stream(
                "libx264", rate=frame_rate, options={"crf": "12", "preset": "veryfast"}
            )
            video.height, video.width = images.shape[1:3]
            video.pix_fmt = "yuv420p"
            if turn:
                video.set_display_rotation(turn)
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            codec = "aac" if path.suffix == ".mp4" else "pcm_s16le"
            audio = container.add_stream(codec, rate=rate, layout="mono" if len(sound) == 1 else "stereo")
        if video is not None:
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None:
            _mux_sound(container, audio, sound, rate)
    return path


def _mux_sound(container, stream, sound: np.ndarray, rate: int) -> None:
    layout = "mono" if len(sound) == 1 else "stereo"
    size = stream.codec_context.frame_size or 1024
    for start in range(0, sound.shape[1], size):
        block = np.ascontiguousarray(sound[:, start : start + size])
        if stream.codec_context.format.name == "s16":
            packed = np.round(block * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format="s16", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def talking_head(path: Path, frames: int = 12, shift: float = 2.0) -> Path:
    """A clip that crops well: a moving face with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_talking_head(path.suffix, frames, shift))
    return path


@cache
def _talking_head(suffix: str, frames: int, shift: float) -> bytes:
    """Content of such a clip, encoded once a session."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder, f"clip{suffix}"), moving_face(frames, shift), tone(frames / 25))
        return clip.read_bytes()


def run_in_process(
    function: Callable[[Any], Any], jobs: Iterable[Any], workers: int
) -> Iterator[tuple[Any, Any]]:
    """Stands for `run_isolated` where separate processes are not what is tested."""
    return ((job, function(job)) for job in jobs)


def syllables(frames: int, seed: int = 0) -> np.ndarray:
    """Opening of a mouth that speaks, 0 to 1 `[T]`: syllables of uneven length and loudness."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(rng.uniform(0.35, 0.95, frames))
    beats = np.arange(0, frames + 8, 8)
    loudness = np.interp(np.arange(frames), beats, rng.uniform(0.4, 1, len(beats)))
    return np.clip(np.sin(phase), 0, 1) * loudness


def voice(opening: np.ndarray) -> np.ndarray:
    """Sound `[1, N]` at 16 kHz that is as loud as the mouth is open; 40 ms a frame."""
    envelope = np.repeat(opening, 640) + 0.01
    noise = np.random.default_rng(1).normal(0, 0.2, len(envelope))
    return (np.clip(envelope * noise, -1, 1)[None]).astype(np.float32)


def talking_face(opening: np.ndarray, shift: float = 0.3) -> np.ndarray:
    """The photograph with its lower lip and chin drawn down by up to 14 pixels, `[T, 208, 208, 3]`."""
    image, seam, side = face(), 127, 26  # row of the lips' seam; half the mouth's width, pixels
    rows, columns = np.mgrid[:208, :208].astype(np.float32)
    across = np.clip(1 - ((columns - 103) / side) ** 2, 0, 1)
    images = []
    for frame, share in enumerate(opening):
        gap = 14 * share * across
        below = rows - seam
        fall = np.where(below > 0, gap * np.clip(1 - (below - gap) / 60, 0, 1), 0)
        spoken = cv2.remap(image, columns, (rows - fall).astype(np.float32), cv2.INTER_LINEAR)
        spoken[(below > 0) & (below < gap)] = (60, 20, 20)
        matrix = np.array([[1, 0, shift * frame], [0, 1, 0]], np.float32)
        images.append(cv2.warpAffine(spoken, matrix, (208, 208), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(images)
