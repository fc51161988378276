"""Speed of every stage of `av-ssl targets`, and what k-means costs with fewer starts.

    python benchmarks/clustering.py [--device cuda] [--size base] [--clips 8]

Prints a markdown table: frames a second of MFCC (100 Hz), of a model's layer (25 Hz), of fitting k-means and
of finding the nearest centroid.  Clips and weights are random; k-means runs on noise around random centres
beside which the mean squared distance of a perfect fit is known.  Without a GPU, seconds are those of the
processor, all threads together: set OMP_NUM_THREADS=1 for frames a second and core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from timing import machine

from av_ssl.device import torch_threads
from av_ssl.inference import EncoderFeatures
from av_ssl.manifest import Clip
from av_ssl.media.audio import write_audio
from av_ssl.media.video import write_video
from av_ssl.methods.fused_encoder import AudioVisualEncoder, AudioVisualEncoderConfig
from av_ssl.targets.clusters import Codebook, fit_kmeans
from av_ssl.targets.feature_shards import FrameFeatures
from av_ssl.targets.mfcc import MfccSource

FRAMES = 75  # of a clip, 3 s
Result = TypeVar("Result")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128,
             "encoder_attention_heads": 4, "resnet_width": 8},
    "base": {},
    "large": {"encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
              "encoder_attention_heads": 16},
}  # fmt: skip
SPREAD = 0.5  # of the noise around a centre, whose own coordinates have a standard deviation of 1


def main() -> None:
    """Measure and print."""
    args = _arguments()
    print(f"{machine(args.device)}\n")
    print("| stage | frames/s | what |\n|---|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        clips = _clips(Path(folder), args.clips)
        _row("MFCC", *_speed(MfccSource(), clips, "cpu"), "39 channels, reading included")
        encoder = AudioVisualEncoder(
            AudioVisualEncoderConfig(image_mean=0.421, image_std=0.165, **SIZES[args.size])
        )
        task = {"normalize": True, "image_crop_size": 88}
        layer = len(encoder.encoder.layers)
        features = EncoderFeatures(encoder.to(args.device).eval(), ("audio", "video"), task, [layer])
        _row("model", *_speed(features, clips, args.device), f"{args.size}, layer {layer}, reading included")
    for dim, clusters in ((39, 100), (args.dim, args.clusters)):
        _k_means(args.frames, dim, clusters, args.starts, args.device)


def _k_means(frames: int, dim: int, clusters: int, starts: list[int], device: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters, dim)).astype(np.float32)
    data = centres[rng.integers(0, clusters, frames)]
    data += SPREAD * rng.standard_normal(data.shape, dtype=np.float32)
    perfect = dim * SPREAD**2
    for number in starts:
        seconds, centroids = _timed(partial(fit_kmeans, data, clusters, starts=number), device)
        codebook = Codebook(centroids, device)
        with torch_threads(1):
            assigning, (_, inertia) = _timed(partial(codebook.nearest, data), device)
        text = (
            f"{dim} channels, {clusters} clusters, {number} starts: {seconds:.1f} s for {frames:,} frames; "
        )
        text += f"inertia {inertia / frames:.2f} a frame, perfect {perfect:.2f}"
        _row("fit", frames, seconds, text)
    clipped = np.split(data, range(FRAMES, frames, FRAMES))
    with torch_threads(1):
        seconds, _ = _timed(lambda: [codebook.nearest(clip) for clip in clipped], device)
    _row("labels", frames, seconds, f"{dim} channels, {clusters} clusters, clip by clip")
    _row("labels", frames, assigning, "the same, all frames in one product")


def _row(stage: str, frames: int, seconds: float, text: str) -> None:
    print(f"| {stage} | {frames / seconds:,.0f} | {text} |", flush=True)


def _timed(work: Callable[[], Result], device: str) -> tuple[float, Result]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    result = work()
    return max(clock() - start, 1e-9), result


def _speed(features: FrameFeatures, clips: list[Clip], device: str) -> tuple[int, float]:
    """Frames and seconds, after a clip to warm up; copying the result off the device waits for it."""
    with torch_threads(1):
        features.of(clips[0])
        seconds, results = _timed(lambda: [len(features.of(clip)) for clip in clips], device)
    return sum(results), seconds


def _clips(folder: Path, count: int) -> list[Clip]:
    rng = np.random.default_rng(0)
    clips = []
    for k in range(count):
        video, audio = folder / f"{k}.mp4", folder / f"{k}.wav"
        write_video(video, rng.integers(0, 256, (FRAMES, 96, 96), np.uint8))
        write_audio(audio, rng.normal(0, 3000, FRAMES * 640).astype(np.int16))
        clips.append(Clip(str(k), video, audio, FRAMES, FRAMES * 640, k + 2))
    return clips


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of making targets, stage by stage.")
    parser.add_argument(
        "--device", default="cpu", help="for the model and the nearest centroid (default: cpu)"
    )
    parser.add_argument("--size", choices=list(SIZES), default="base", help="of the model (default: base)")
    parser.add_argument("--clips", type=int, default=8, help="of 3 s (default: 8)")
    parser.add_argument("--frames", type=int, default=100_000, help="for k-means (default: 100000)")
    parser.add_argument("--dim", type=int, default=768, help="channels, second k-means (default: 768)")
    parser.add_argument("--clusters", type=int, default=500, help="its clusters (default: 500)")
    parser.add_argument(
        "--starts", type=int, nargs="+", default=[3, 20], help="initialisations (default: 3 20)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
