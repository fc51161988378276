"""`av-ssl plan DATA CONFIG`: what a recipe costs on a data folder, before it is started."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from av_ssl.analysis.plan import (
    Epoch,
    Speed,
    StepCost,
    build_on_no_device,
    checkpoint_bytes,
    checkpoints_kept,
    memory,
    read_recipe,
    step_cost,
)
from av_ssl.errors import DataError
from av_ssl.layout import Clip

FRAME_RATE = 25
SAMPLED_FILES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with train.tsv")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML of a recipe")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="as for fairseq-hydra-train, e.g. dataset.max_tokens=1000",
    )
    parser.add_argument(
        "--measured",
        metavar="FILE",
        type=Path,
        help="step time on your GPU: what benchmarks/training_step.py --json FILE has written",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=150.0,
        help="without --measured: peak of the GPU's matrix products, of which 30 %% are taken to be reached "
        "(default: 150)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    cfg = read_recipe(args.config, args.data.absolute(), args.overrides)
    task, model = build_on_no_device(cfg, args.config)
    clips, kept = task.read_split("train")
    chosen = [clips[index] for index in kept]
    speed = Speed.measured(args.measured) if args.measured else Speed.assumed(args.tflops)
    longest = cfg.task.max_trim_sample_size or max(clip.frames for clip in chosen)
    cost = step_cost(cfg, task, model, longest)
    for name, value in _plan(cfg, model, cost, chosen, len(clips), speed):
        print(f"{name:28}{value}")
    return 0


def _plan(
    cfg: Any, model: Any, cost: StepCost, clips: list[Clip], listed: int, speed: Speed
) -> list[tuple[str, str]]:
    gpus = cfg.distributed_training.distributed_world_size
    accumulate = int(cfg.optimization.update_freq[0])
    longest = cfg.task.max_trim_sample_size or max(clip.frames for clip in clips)
    epoch = Epoch.of(
        [min(clip.frames, longest) for clip in clips],
        cfg.dataset.max_tokens,
        cfg.dataset.batch_size,
        cfg.dataset.required_batch_size_multiple,
    )
    per_epoch = epoch.updates(gpus, accumulate)
    updates = cfg.optimization.max_update or per_epoch * cfg.optimization.max_epoch
    if not updates:
        raise DataError("the recipe sets neither optimization.max_update nor max_epoch; it would never end")
    frames_a_second = speed.multiply_adds / cost.update
    hours = updates * epoch.frames / per_epoch / frames_a_second / 3600
    half = bool(cfg.common.fp16 or cfg.common.bf16)
    batch = cfg.dataset.max_tokens or epoch.padded_frames // epoch.batches
    states, activations = memory(
        model, cfg.task.image_crop_size, batch, half, averaged="ema_decay" in cfg.model
    )
    states += cost.teacher_bytes
    saved, size = checkpoints_kept(cfg, updates, per_epoch), checkpoint_bytes(model, half)
    seconds = epoch.frames / FRAME_RATE
    padding = epoch.padded_frames / epoch.frames - 1
    left_out = " (the others are too short or too long)" if epoch.clips < listed else ""
    return [
        ("clips", f"{epoch.clips:,} of {listed:,}{left_out}"),
        ("hours", f"{seconds / 3600:.1f}, padding adds {padding:.1%}"),
        ("batches an epoch", f"{epoch.batches:,} of up to {batch:,} frames"),
        ("updates an epoch", f"{per_epoch:,} ({gpus} GPUs x {accumulate} micro-batches)"),
        ("frames an update", f"{epoch.frames / per_epoch:,.0f} ({seconds / per_epoch:.0f} s)"),
        ("updates", f"{updates:,} = {updates / per_epoch:,.1f} epochs"),
        ("multiply-adds", f"{cost.forward / 1e6:,.0f} M a frame and forward pass{cost.teacher_note}"),
        ("speed", f"{frames_a_second:,.0f} frames/s a GPU, {speed.source}"),
        ("GPU-hours", f"{hours:,.1f}, so {hours / gpus:,.1f} h on {gpus} GPUs"),
        ("memory a GPU, estimate", f"{_gb(states)} states + {_gb(activations)} activations"),
        ("disk, checkpoints", f"{_gb(saved * size)}: {saved} of {_gb(size)}, estimate"),
        ("disk, clips", _disk(clips)),
    ]  # fmt: skip


def _disk(clips: list[Clip]) -> str:
    """Size of the clips' files, from some of them."""
    some = random.Random(0).sample(clips, min(SAMPLED_FILES, len(clips)))
    sizes = [
        sum(path.stat().st_size for path in (clip.video, clip.audio) if path is not None and path.is_file())
        for clip in some
    ]
    return f"{_gb(sum(sizes) / len(sizes) * len(clips))}, from the files of {len(some)} clips"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
