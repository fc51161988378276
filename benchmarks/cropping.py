"""Frames a second and core of every stage of cropping, as a markdown table.

    python benchmarks/cropping.py [VIDEO] [--frames 250] [--size 96] [--stride 1]

Without VIDEO a moving photograph of a face (360x288, from scikit-image) is filmed first. Everything runs on
one CPU thread.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from av_ssl.media.alignment import crop_transforms, warp
from av_ssl.media.audio import read_audio
from av_ssl.media.cropping import CropSettings, crop_clip
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.tracking import FaceTracker
from av_ssl.media.video import FPS, VideoReader, write_video

SOURCE_SIZE = (360, 288)  # width, height of the film made here, pixels


def main() -> None:
    """Measure and print."""
    args = _arguments()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = args.video or _film(Path(folder) / "face.mp4", args.frames)
        rows = measure(source, Path(folder), CropSettings(args.size, stride=args.stride))
    print(
        f"{platform.processor() or platform.machine()}, {_cpu_name()}, OpenCV {cv2.__version__}, one thread\n"
    )
    print("| stage | frames/s/core | ms a frame |\n|---|---:|---:|")
    for stage, speed in rows:
        print(f"| {stage} | {speed:.0f} | {1000 / speed:.2f} |")


def measure(source: Path, folder: Path, settings: CropSettings) -> list[tuple[str, float]]:
    """Frames/s of CPU time of each stage on the video `source`."""
    mesh = FaceMesh()
    reader = VideoReader(source)
    pictures = list(reader.frames())
    frames = len(pictures)
    tracker = FaceTracker(mesh, settings.stride)
    gray = list(reader.frames(gray=True))

    def track() -> None:
        for picture in pictures:
            tracker.update(picture)

    rows = [
        ("decode to RGB", _speed(lambda: list(VideoReader(source, keep_bytes=0).frames()), frames)),
        ("audio", _speed(lambda: read_audio(source), frames)),
        (f"landmarks (stride {settings.stride})", _speed(track, frames)),
    ]
    points = tracker.tracks[0].interpolated(frames)
    transforms = crop_transforms(points, settings.region, settings.size)
    crops = [warp(picture, matrix, settings.size) for picture, matrix in zip(gray, transforms, strict=True)]

    def align() -> None:
        for picture, matrix in zip(
            gray, crop_transforms(points, settings.region, settings.size), strict=True
        ):
            warp(picture, matrix, settings.size)

    video, audio = folder / "crop.mp4", folder / "crop.wav"
    rows += [
        ("align and warp", _speed(align, frames)),
        ("encode and write", _speed(lambda: write_video(video, np.stack(crops)), frames)),
        ("**end to end**", _speed(lambda: crop_clip(source, video, audio, settings, mesh), frames)),
    ]
    return rows


def _speed(work: Callable[[], object], frames: int) -> float:
    start = time.process_time()
    work()
    return frames / max(time.process_time() - start, 1e-9)


def _film(path: Path, frames: int) -> Path:
    from skimage import data

    photograph = np.ascontiguousarray(data.astronaut()[20:228, 90:350])
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height = SOURCE_SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for frame in range(frames):
            shift = [[1.38, 0, 10 * np.sin(frame / 20)], [0, 1.38, 5 * np.cos(frame / 15)]]
            picture = cv2.warpAffine(
                photograph, np.array(shift), SOURCE_SIZE, borderMode=cv2.BORDER_REPLICATE
            )
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        for start in range(0, frames * 640, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, start
            container.mux(audio.encode(block))
        container.mux(audio.encode())
    return path


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown CPU"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of cropping, stage by stage.")
    parser.add_argument(
        "video", nargs="?", type=Path, help="a video with a face and sound (default: one made here)"
    )
    parser.add_argument(
        "--frames", type=int, default=250, help="length of the video made here (default: 250)"
    )
    parser.add_argument("--size", type=int, default=96, help="side of the crops, pixels (default: 96)")
    parser.add_argument("--stride", type=int, default=1, help="landmarks on every k-th frame (default: 1)")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="cropping runs on the CPU only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
