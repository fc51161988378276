"""How many video frames a second the data path delivers: read, crop, filterbank, collate, copy to the device.

    python benchmarks/data_path.py --workers 1 4 --device cpu

Clips are made by the script (random walks over blurred noise, about as hard to decode as mouth crops) and lie
in the page cache afterwards, so the numbers are those of the processor, not of a disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fairseq.utils
import numpy as np
import soundfile
import torch
from timing import machine, synchronize
from torch.utils.data import DataLoader

from av_ssl.data.clip_reader import AUDIO_INPUTS, ClipReader, CropAndFlip
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.masking import StreamMasking
from av_ssl.data.spans import SpanMask
from av_ssl.layout import SAMPLES_PER_FRAME
from av_ssl.manifest import Clip
from av_ssl.media.video import write_video

SIDE = 96
MASKING = StreamMasking(SpanMask(0.8, 10), SpanMask(0.3, 5), modality_dropout=0.5, audio_dropout=0.5)


def make_frames(frames: int, rng: np.random.Generator) -> np.ndarray:
    """`[T, 96, 96]` uint8: a blurred texture that drifts, with a little noise."""
    texture = cv2.GaussianBlur(rng.normal(0, 1, (2 * SIDE, 2 * SIDE)).astype(np.float32), (0, 0), 3)
    texture = 128 + 40 * texture / texture.std()
    steps = np.clip(SIDE / 2 + np.cumsum(rng.integers(-1, 2, (frames, 2)), axis=0), 0, SIDE).astype(int)
    images = np.stack([texture[y : y + SIDE, x : x + SIDE] for y, x in steps])
    return np.clip(images + rng.normal(0, 2, images.shape), 0, 255).astype(np.uint8)


def make_clips(folder: Path, suffix: str, count: int, frames: int) -> list[Clip]:
    rng = np.random.default_rng(0)
    clips = []
    for k in range(count):
        video, audio = folder / f"{k}{suffix}", folder / f"{k}.wav"
        images = make_frames(frames, rng)
        if suffix == ".npy":
            np.save(video, images)
        else:
            write_video(video, images)
        wave = rng.normal(0, 3000, frames * SAMPLES_PER_FRAME).astype(np.int16)
        soundfile.write(audio, wave, 16000, subtype="PCM_16")
        clips.append(Clip(str(k), video, audio, frames, len(wave), k + 2))
    return clips


def batches(data: AudioVisualDataset, max_frames: int, epochs: int) -> Iterator[list[int]]:
    order = data.ordered_indices()
    for _ in range(epochs):
        yield from data.batch_by_size(order, max_tokens=max_frames)


def measure(
    data: AudioVisualDataset, workers: int, max_frames: int, epochs: int, device: torch.device
) -> float:
    """Real frames a second, first epoch (start of the workers) left out."""
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=list(batches(data, max_frames, epochs + 1)),
        collate_fn=data.collater,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    warm_up, frames, start = len(list(batches(data, max_frames, 1))), 0, time.perf_counter()
    for number, batch in enumerate(loader):
        if device.type != "cpu":
            batch = fairseq.utils.move_to_cuda(batch, device)
        if number == warm_up - 1:
            start = time.perf_counter()
        elif number >= warm_up:
            frames += batch["ntokens"]
    synchronize(str(device))
    return frames / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="frames a second of the data path")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, torch.multiprocessing.cpu_count()])
    parser.add_argument("--device", default="cpu", help="where batches are copied to, e.g. cuda")
    parser.add_argument("--audio-input", choices=AUDIO_INPUTS, default="filterbank")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--frames", type=int, default=75, help="a clip")
    parser.add_argument("--max-frames", type=int, default=1000, help="frames of a batch")
    parser.add_argument("--epochs", type=int, default=10, help="times that the clips are read")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    print(f"Machine: {machine(arguments.device)}, OpenCV {cv2.__version__}\n")
    print("| video | workers | frames/s | frames/s a worker |\n|---|---|---|---|")
    for suffix in (".mp4", ".npy"):
        with tempfile.TemporaryDirectory() as folder:
            clips = make_clips(Path(folder), suffix, arguments.clips, arguments.frames)
            reader = ClipReader(CropAndFlip(88, random=True), audio_input=arguments.audio_input)
            data = AudioVisualDataset(clips=clips, reader=reader, masking=MASKING)
            for workers in arguments.workers:
                rate = measure(data, workers, arguments.max_frames, arguments.epochs, device)
                print(f"| {suffix} | {workers} | {rate:,.0f} | {rate / max(1, workers):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
