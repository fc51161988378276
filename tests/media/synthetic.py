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


def cut_to_another_face(frames: int) -> np.ndarray:
    """A face for so many frames, then another one at its place, with other light, for as many."""
    images = moving_face(2 * frames, 0.1)
    other = cv2.GaussianBlur(images[frames][:, ::-1], (0, 0), 1)
    images[frames:] = (0.3 * other + 0.7 * (255 - other) * (other > 60)).astype(np.uint8)
    return images


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
    start: float = 0.0,
    aspect: Fraction = Fraction(1),
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    full_range: bool = False,
    cover: np.ndarray | None = None,
    more_sound: Iterable[np.ndarray] = (),
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
        start: time of the first frame and sample, seconds.
        aspect: width of a pixel over its height.
        options: further options of the encoder.
        pixels: format of the stored pixels.
        full_range: whether they are stored as 0 to 255.
        cover: still image `[1, H, W, 3]` of a stream before the others.
        more_sound: further audio tracks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The table of contents first, as in files for the web: a truncated one can still be opened.
    muxer = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=muxer) as container:
        video, streams = None, []
        if cover is not None:
            still = container.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
        if images is not None:
            frame_rate = Fraction(fps).limit_denominator(1001)
            encoder = {"crf": "12", "preset": "veryfast", **(options or {})}
            codec = "mpeg2video" if path.suffix == ".mpg" else "libx264"
            video = container.add_stream(codec, rate=frame_rate, options=encoder)
            video.height, video.width = images.shape[1:3]
            video.pix_fmt = pixels
            video.codec_context.sample_aspect_ratio = aspect
            video.codec_context.color_range = 2 if full_range else 1
            if turn:
                video.set_display_rotation(turn)
            if times is not None or start:
                video.codec_context.time_base = Fraction(1, 1000)
        for track in [] if sound is None else [sound, *more_sound]:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(track)]
            streams.append((container.add_stream(_codec(path), rate=rate, layout=layout), track))
        if cover is not None:
            container.mux(
                still.encode(av.VideoFrame.from_ndarray(cover[0], format="rgb24").reformat(format="yuvj420p"))
            )
            container.mux(still.encode())
        if video is not None:
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if full_range:
                    frame = frame.reformat(format=pixels, dst_color_range=2)
                    frame.color_range = 2
                if times is not None or start:
                    time = start + (index / fps if times is None else times[index])
                    frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        for stream, track in streams:
            for packet in _encoded(stream, track, rate, start):
                container.mux(packet)
    return path


def _codec(path: Path) -> str:
    return {".mp4": "aac", ".ts": "mp2", ".mpg": "mp2"}.get(path.suffix, "pcm_s16le")


def _encoded(stream, sound: np.ndarray, rate: int, start: float = 0.0) -> Iterator[av.Packet]:
    size = stream.codec_context.frame_size or 1024
    packed = stream.codec_context.format.name.rstrip("p") != stream.codec_context.format.name
    for first in range(0, sound.shape[1], size):
        block = np.ascontiguousarray(sound[:, first : first + size])
        name = stream.codec_context.format.name
        if name.startswith("s16"):
            block = np.round(block * 32767).astype(np.int16)
            block = block if packed else np.ascontiguousarray(block.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(block, format=name, layout=stream.codec_context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, first + round(start * rate), Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode()


def add_sound(
    path: Path,
    sound: np.ndarray,
    gaps: dict[float, float],
    clock: float = 1.0,
    frames: np.ndarray | None = None,
) -> Path:
    """Write sound `[1, N]` whose packets in `gaps` (start: length, seconds) are lost and whose stamps run
    `clock` times as fast as its samples.
    """
    with av.open(str(path), "w") as container:
        if frames is not None:
            video = container.add_stream("libx264", rate=25, width=96, height=96, pix_fmt="yuv420p")
        stream = container.add_stream(_codec(path), rate=RATE, layout="mono")
        if frames is not None:
            for image in frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        for packet in _encoded(stream, sound, RATE):
            time = float(packet.pts * packet.time_base)
            if any(start <= time < start + length for start, length in gaps.items()):
                continue
            packet.pts = packet.dts = round(packet.pts * clock)
            container.mux(packet)
    return path


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
