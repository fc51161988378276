"""Speed of a pre-training step of AV2vec, with each of its economies switched off in turn.

    python benchmarks/training_step.py [--device cuda] [--size base] [--frames 1000] [--steps 3] [--json FILE]

Prints a markdown table: real frames a second, peak memory, and the share of the machine's own matrix-product
peak (measured in the same run) that the useful multiply-adds of the step reach.  Each row is measured in a
process of its own, so that its peak memory holds nothing of the rows before it.
"""

import argparse
import json
import multiprocessing
import resource
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from timing import machine, median_time
from torch.nn.attention import SDPBackend, sdpa_kernel

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.io import write_atomically
from av_ssl.methods.av2vec import AV2vecConfig, AV2vecCriterion, AV2vecCriterionConfig, AV2vecModel

SIZES = {
    "tiny": {"encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128,
             "encoder_attention_heads": 4, "resnet_width": 8, "average_top_k_layers": 2,
             "conv_pos": 16, "conv_pos_groups": 4},
    "base": {},
    "large": {"encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
              "encoder_attention_heads": 16},
}  # fmt: skip


@dataclass
class Variant:
    """One row: what differs from the step as users run it."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    change_batch: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    fused_attention: bool = True


def convolve_padding(batch: dict[str, Any]) -> dict[str, Any]:
    """Run the ResNet on padded frames, too."""
    frames = batch["padding_mask"].numel()
    return {**batch, "frame_index": torch.arange(frames, device=batch["padding_mask"].device)}


def float_video(batch: dict[str, Any]) -> dict[str, Any]:
    """Normalised float frames cross to the device, as other pipelines send them."""
    video = batch["host_video"].float().sub_(255 * 0.421).div_(255 * 0.165)
    video = video.to(batch["padding_mask"].device)
    return {**batch, "source": {**batch["source"], "video": video}}


def drop_video(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "masks": {**batch["masks"], "dropped": "video"}}


VARIANTS = [
    Variant("as shipped"),
    Variant("padding goes through the ResNet", change_batch=convolve_padding),
    Variant("ResNet twice (input masking, clean pass for the teacher)", model={"masking_type": "input"}),
    Variant("teacher has front-ends of its own (ema_scope full)", model={"ema_scope": "full"}),
    Variant("float video from the host", change_batch=float_video),
    Variant("attention without fused kernels", fused_attention=False),
    Variant("video dropped from this step", change_batch=drop_video),
    Variant("activations recomputed", model={"checkpoint_activations": True}),
]


def clip_lengths(frames: int, rng: np.random.Generator) -> list[int]:
    """Lengths of a batch of similar clips, 2 to 6 s as in LRS3, that sum to about ``frames``."""
    longest = int(rng.integers(120, 150))
    lengths = []
    while sum(lengths) < frames - 60:
        lengths.append(int(rng.integers(longest // 2, longest)))
    return lengths


def make_batch(model: AV2vecModel, lengths: list[int], device: torch.device) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frames = max(lengths)
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    video = torch.randint(0, 256, (len(lengths), 1, frames, 88, 88), dtype=torch.uint8)
    batch = {
        "source": {"audio": torch.randn(len(lengths), 104, frames), "video": video},
        "padding_mask": padding,
        "frame_index": (~padding).flatten().nonzero().squeeze(1),
        "masks": {**model.masking.draw(lengths, frames, rng), "dropped": None},
    }
    return {**to_device(batch, device), "host_video": video}


def to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value.to(device) if torch.is_tensor(value) else value


def forward_multiply_adds(cfg: Any, frames: int) -> float:
    """Multiply-adds of a student pass over real frames (convolutions, linear layers), from layer sizes."""
    width, channels = cfg.resnet_width, cfg.encoder_embed_dim
    ffn, layers = cfg.encoder_ffn_embed_dim, cfg.encoder_layers
    stem = width * 5 * 49 * 44 * 44
    trunk = 0.0
    maps, channels_in = 22, width
    for stage in range(4):
        out = width << stage
        maps = maps if stage == 0 else -(-maps // 2)
        shortcut = channels_in * out if stage else 0
        trunk += maps * maps * (9 * out * (channels_in + 3 * out) + shortcut)
        channels_in = out
    positions = channels * (channels // cfg.conv_pos_groups) * cfg.conv_pos
    encoder = layers * (4 * channels * channels + 2 * channels * ffn) + positions
    return frames * (stem + trunk + encoder + 2 * channels * channels)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds a second of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = median_time(lambda: a @ b, str(device), 8)
    return size**3 / seconds


def measure(variant: Variant, args: argparse.Namespace, lengths: list[int]) -> tuple[float, float, float]:
    """Seconds a step, peak memory in GB (of the device; of the process on a CPU), its useful multiply-adds.

    To be called once in a process, whose ``ru_maxrss`` never falls.
    """
    device = torch.device(args.device)
    torch.manual_seed(0)
    overrides = {"image_mean": 0.421, "image_std": 0.165, **SIZES[args.size], **variant.model}
    cfg = OmegaConf.merge(OmegaConf.structured(AV2vecConfig()), overrides)
    model = AV2vecModel(cfg).to(device, args.dtype).train()
    criterion = AV2vecCriterion(AV2vecCriterionConfig(), task=None)
    batch = make_batch(model, lengths, device)

    def step() -> None:
        inputs = variant.change_batch(batch) if variant.change_batch else batch
        inputs = {key: value for key, value in inputs.items() if key != "host_video"}
        loss, _, _ = criterion(model, {"net_input": inputs, "ntokens": 0, "nsentences": 0})
        model.zero_grad()
        loss.backward()
        model.set_num_updates(model.updates + 1)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with nullcontext() if variant.fused_attention else sdpa_kernel(SDPBackend.MATH):
        seconds = median_time(step, args.device, args.steps, args.warmup)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 1e9
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return seconds, memory, 3 * forward_multiply_adds(cfg, sum(lengths))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--frames", type=int, default=1000, help="real frames of the batch, about")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="steps before these that do not count")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default="float32")
    parser.add_argument("--compile", action="store_true", help="add a row with model.compile=true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write conditions and rows to FILE")
    return parser.parse_args()


def conditions(args: argparse.Namespace, lengths: list[int], peak: float) -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "model": f"AV2vec {args.size}, {str(args.dtype)[6:]}",
        "batch": f"{len(lengths)} clips, {sum(lengths)} real of {max(lengths) * len(lengths)} frames",
        "machine": machine(args.device),
        "matrix_peak_gflops": round(2 * peak / 1e9),
        "steps": args.steps,
    }


def print_heading(of: dict[str, Any]) -> None:
    peak = f"matrix-product peak {of['matrix_peak_gflops']} GFLOP/s"
    print(f"{of['model']}, {of['batch']}; {of['machine']}; {peak}\n")
    print("| step | frames/s | against shipped | peak memory, GB | share of matrix peak |")
    print("|---|---|---|---|---|")


def print_row(row: dict[str, Any], shipped: dict[str, Any]) -> None:
    speed = row["frames_per_second"]
    cells = (row["step"], f"{speed:.0f}", f"{speed / shipped['frames_per_second']:.2f} x")
    cells += (f"{row['peak_memory_gb']:.1f}", f"{row['share_of_matrix_peak']:.0%}")
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    args = parse_arguments()
    lengths = clip_lengths(args.frames, np.random.default_rng(1))
    variants = [*VARIANTS, Variant("torch.compile", model={"compile": True})] if args.compile else VARIANTS
    rows: list[dict[str, Any]] = []
    # The matrix product, too, runs in a worker: Linux hands this process's own peak memory down to the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peak = pool.apply(matrix_peak, (torch.device(args.device), args.dtype))
        heading = conditions(args, lengths, peak)
        print_heading(heading)
        for variant in variants:
            seconds, memory, useful = pool.apply(measure, (variant, args, lengths))
            row = {"step": variant.name, "frames_per_second": sum(lengths) / seconds}
            rows.append({**row, "peak_memory_gb": memory, "share_of_matrix_peak": useful / seconds / peak})
            print_row(rows[-1], rows[0])
            if args.json:  # after each row: an interrupted run keeps what it has
                write_atomically(args.json, json.dumps({**heading, "rows": rows}, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
