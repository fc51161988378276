"""Speed of cropping on one core: each stage, all together, and against baselines.

    python benchmarks/cropping.py [VIDEO ...] [--frames 250] [--size 96] [--stride 4] [--dlib-model FILE]

Without VIDEO, a video of a moving photograph is made (224x224 as LRS3 and VoxCeleb2, from scikit-image).
Everything runs on one CPU thread; speeds are source frames a second of CPU time. There are two baselines:
decoding alone, the lower limit of any pipeline, and the pipeline of AV-HuBERT's data preparation: dlib's HOG
detector at one upsampling and 68 points on every frame (pip install 'av_ssl[dlib]'). Without --dlib-model a
predictor of the published size is trained here, for timing only. Baselines take the first VIDEO.

Landmarks are found on every ``--stride``-th frame; the shift of the crops that this causes is printed too.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from av_ssl.layout import FRAME_RATE
from av_ssl.media.alignment import crop_transforms, warp
from av_ssl.media.audio import read_audio
from av_ssl.media.backends import OpenCVBackend
from av_ssl.media.crops import CropSettings, crop_clip
from av_ssl.media.face_mesh import FaceMesh
from av_ssl.media.stored_frame import StoredFrame
from av_ssl.media.video import VideoReader, write_video

HOG_FRAMES = 100  # enough to time so slow a step
TRAINING_FRAMES = 12
SOURCE_SIZE = 224  # width and height of the video made here, pixels


def main() -> None:
    """Measure and print."""
    args = _arguments()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        sources = args.videos or [make_video(Path(folder) / "face.mp4", args.frames)]
        settings = CropSettings(args.size, stride=args.stride)
        stages, total = measure(sources, Path(folder), settings)
        others = baselines(sources[0], Path(folder), args.dlib_model)
        moved = np.concatenate([shift(video, settings) for video in sources])
    print(
        f"{platform.processor() or platform.machine()}, {_cpu_name()}, OpenCV {cv2.__version__}, one thread\n"
    )
    print("| stage | frames/s/core | ms a frame | share |\n|---|---:|---:|---:|")
    for stage, speed in stages:
        print(f"| {stage} | {speed:,.0f} | {1000 / speed:.2f} | {total / speed:.0%} |")
    parts = sum(1 / speed for _, speed in stages)
    print(f"| sum of the parts | {1 / parts:,.0f} | {1000 * parts:.2f} | {total * parts:.0%} |")
    print(f"| **from mp4 to written crop** | {total:,.0f} | {1000 / total:.2f} | |")
    print("\n| baseline | frames/s/core | our pipeline is |\n|---|---:|---:|")
    for name, speed in others:
        print(f"| {name} | {speed:,.0f} | {total / speed:.2f} x as fast |")
    print(
        f"\nCrops at stride {settings.stride} lie {moved.mean():.2f} of their {settings.size} pixels away "
        f"from those at stride 1 (95 % of frames: below {np.percentile(moved, 95):.2f}); "
        f"{len(moved):,} frames of {len(sources)} videos."
    )


def shift(source: Path, settings: CropSettings) -> np.ndarray:
    """Shift of the crops ``[T]``, in their pixels, between stride 1 and the stride of the settings."""
    every, some = (
        crop_transforms(points, settings.region, settings.size)
        for points in (landmarks(source, 1), landmarks(source, settings.stride))
    )
    centre = np.full(2, (settings.size - 1) / 2)
    seen = [cv2.invertAffineTransform(matrix) @ [*centre, 1] for matrix in every]
    there = [matrix @ [*point, 1] for matrix, point in zip(some, seen, strict=True)]
    return np.linalg.norm(np.array(there) - centre, axis=1)


def landmarks(source: Path, stride: int) -> np.ndarray:
    """Points ``[T, 468, 3]`` of the face that is tracked longest."""
    faces = OpenCVBackend(stride).track(VideoReader(source), "")
    return max(faces.tracks, key=len).interpolated(faces.frames)


def measure(
    sources: Sequence[Path], folder: Path, settings: CropSettings
) -> tuple[list[tuple[str, float]], float]:
    """Frames/s of CPU time of each stage on some videos, and of all together."""
    mesh = FaceMesh()
    readers = [VideoReader(source) for source in sources]
    # They keep the frames, so that tracking does not decode again.
    frames = sum(1 for reader in readers for _ in reader.stored_frames())
    backend = OpenCVBackend(settings.stride, mesh)
    points = [landmarks(source, settings.stride) for source in sources]

    def aligned(reader: VideoReader, clip: np.ndarray) -> list[np.ndarray]:
        transforms = crop_transforms(clip, settings.region, settings.size)
        images = reader.frames(gray=True)
        return [warp(image, matrix, settings.size) for image, matrix in zip(images, transforms, strict=True)]

    def align() -> list[np.ndarray]:
        return [np.stack(aligned(reader, clip)) for reader, clip in zip(readers, points, strict=True)]

    crops, video, audio = align(), folder / "crop.mp4", folder / "crop.wav"

    def decode() -> None:
        for source in sources:
            for _ in VideoReader(source, keep_bytes=0).stored_frames():
                pass

    def crop() -> None:
        for source in sources:
            assert crop_clip(source, video, audio, settings, backend).ok

    rows = [
        ("decode", _speed(decode, frames)),
        ("audio", _speed(lambda: [read_audio(source) for source in sources], frames)),
        (
            f"landmarks (stride {settings.stride})",
            _speed(lambda: [backend.track(reader, "") for reader in readers], frames),
        ),
        ("convert, align and warp", _speed(align, frames)),
        ("encode and write", _speed(lambda: [write_video(video, clip) for clip in crops], frames)),
    ]
    return rows, _speed(crop, frames)


def baselines(source: Path, folder: Path, dlib_model: Path | None) -> list[tuple[str, float]]:
    """Decoding alone, and dlib's pipeline where dlib is installed."""

    def decode() -> list[StoredFrame]:
        return list(VideoReader(source, keep_bytes=0).stored_frames())

    frames = len(decode())
    rows = [("decoding alone", _speed(decode, frames))]
    try:
        import dlib
    except ModuleNotFoundError:
        print("dlib is not installed, so it is not compared: pip install 'av_ssl[dlib]'\n")
        return rows
    if dlib_model is None:
        from dlib_points import train_predictor

        dlib_model = folder / "points68.dat"
        some = list(VideoReader(source).frames())[:TRAINING_FRAMES]
        train_predictor(some, landmarks(source, 1)[: len(some)], dlib_model)
    settings = CropSettings(backend="dlib", dlib_model=str(dlib_model), stride=1)
    backend = settings.make_backend()
    video, audio = folder / "dlib.mp4", folder / "dlib.wav"
    speed = _speed(lambda: crop_clip(source, video, audio, settings, backend), frames)
    detector = dlib.get_frontal_face_detector()
    some = list(VideoReader(source).frames())[:HOG_FRAMES]
    alone = _speed(lambda: [detector(image, 1) for image in some], len(some))
    pipeline = "dlib: HOG and 68 points, from mp4 to written crop"
    return [*rows, (pipeline, speed), ("its detection alone", alone)]


def _speed(work: Callable[[], object], frames: int) -> float:
    start = time.process_time()
    work()
    return frames / max(time.process_time() - start, 1e-9)


def make_video(path: Path, frames: int) -> Path:
    from skimage import data

    photograph = np.ascontiguousarray(data.astronaut()[20:228, 120:328])
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width = video.height = SOURCE_SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for frame in range(frames):
            shift = np.array([[1.08, 0, 10 * np.sin(frame / 20)], [0, 1.08, 5 * np.cos(frame / 15)]])
            side = (SOURCE_SIZE, SOURCE_SIZE)
            image = cv2.warpAffine(photograph, shift, side, borderMode=cv2.BORDER_REPLICATE)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
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
        "videos", nargs="*", type=Path, help="videos with a face and sound (default: one made here)"
    )
    parser.add_argument(
        "--frames", type=int, default=250, help="length of the video made here (default: 250)"
    )
    parser.add_argument("--size", type=int, default=96, help="side of the crops, pixels (default: 96)")
    stride = CropSettings.stride
    parser.add_argument(
        "--stride", type=int, default=stride, help=f"landmarks on every k-th frame (default: {stride})"
    )
    parser.add_argument("--dlib-model", type=Path, help="dlib's file of 68 points (default: one made here)")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="cropping runs on the CPU only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
