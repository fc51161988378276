"""Speed of a pre-training step, with each of its economies switched off in turn.

    python benchmarks/training_step.py [--method av2vec] [--device cuda] [--size base] [--frames 1000]
    python benchmarks/training_step.py --check --device cuda         # losses in half precision, all methods

Prints a markdown table: real frames a second, peak memory, and the share of the machine's own matrix-product
peak (measured in the same run) that the useful multiply-adds of the step reach.

Virtual machines change their speed from minute to minute.  So on a CPU each step of a row comes after one as
shipped, and the ratio is the median over these pairs.  There each row has a process of its own, so that its
peak memory holds nothing of the others.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from omegaconf import OmegaConf
from timing import machine, median_time, times
from torch.nn.attention import SDPBackend, sdpa_kernel

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.io import write_atomically
from av_ssl.layout import SAMPLES_PER_FRAME
from av_ssl.methods.av2vec import AV2vecConfig, AV2vecCriterion, AV2vecCriterionConfig, AV2vecModel
from av_ssl.methods.av_hubert import AVHubertConfig, AVHubertCriterion, AVHubertCriterionConfig, AVHubertModel
from av_ssl.methods.distillav import (
    DistillAVConfig,
    DistillAVCriterion,
    DistillAVCriterionConfig,
    DistillAVModel,
)
from av_ssl.methods.raven.pretraining import RavenConfig, RavenCriterion, RavenCriterionConfig, RavenModel
from av_ssl.modules.frontends import VisualResNet
from av_ssl.targets.teacher_targets import Target

FUSED_TINY = {
    "encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, "encoder_attention_heads": 4,
    "resnet_width": 8, "conv_pos": 16, "conv_pos_groups": 4,
}  # fmt: skip
RAVEN_TINY = {
    "encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, "resnet_width": 8,
    "predictor_embed_dim": 64, "predictor_ffn_embed_dim": 128,
}  # fmt: skip
LARGE = {
    "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}  # fmt: skip
SIZES = ("tiny", "base", "large")
CLASSES = 2000
TEACHERS = [{"dim": 1024, "per_frame": 2, "clusters": CLASSES}]
"""WavLM Large, two vectors a video frame."""
CALM = {"dropout": 0.0, "attention_dropout": 0.0}
CALM_FUSED = {**CALM, "dropout_input": 0.0, "encoder_layerdrop": 0.0}


@dataclass(frozen=True)
class Method:
    """How a model is built.

    Args:
        parts: classes of configuration, model, criterion, and the criterion's configuration.
        sizes: keys of the sizes that are not the configuration's defaults.
        keys: further keys.
        clusters: the model takes the number of its cluster labels.
    """

    parts: tuple[Any, Any, Any, Any]
    sizes: dict[str, dict[str, Any]]
    keys: dict[str, Any] = field(default_factory=dict)
    clusters: bool = False
    calm: dict[str, Any] = field(default_factory=lambda: CALM_FUSED)


METHODS = {
    "av_hubert": Method(
        (AVHubertConfig, AVHubertModel, AVHubertCriterion, AVHubertCriterionConfig),
        {"tiny": FUSED_TINY, "large": LARGE},
        {"final_dim": 256, "layer_norm_first": True, "selection_type": "same_seq"},
        clusters=True,
    ),
    "av2vec": Method(
        (AV2vecConfig, AV2vecModel, AV2vecCriterion, AV2vecCriterionConfig),
        {"tiny": {**FUSED_TINY, "average_top_k_layers": 2}, "large": LARGE},
    ),
    "raven": Method(
        (RavenConfig, RavenModel, RavenCriterion, RavenCriterionConfig),
        {"tiny": RAVEN_TINY, "large": LARGE},
        {"sync_batch_norm": False, "ema_anneal_end_step": 1000},
        calm=CALM,
    ),
    "distillav": Method(
        (DistillAVConfig, DistillAVModel, DistillAVCriterion, DistillAVCriterionConfig),
        {"tiny": FUSED_TINY, "large": LARGE},
        {"teacher_shapes": TEACHERS},
    ),
}
FUSED = ("av_hubert", "av2vec", "distillav")


@dataclass
class Variant:
    """One row: what differs from the step as users run it."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    change_batch: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    fused_attention: bool = True
    stem_3d: bool = False
    methods: tuple[str, ...] = tuple(METHODS)


def convolve_padding(batch: dict[str, Any]) -> dict[str, Any]:
    """Run the ResNet on padded frames, too."""
    frames = batch["padding_mask"].numel()
    return {**batch, "frame_index": torch.arange(frames, device=batch["padding_mask"].device)}


def float_video(batch: dict[str, Any]) -> dict[str, Any]:
    """Normalised float frames cross to the device, as other pipelines send them."""
    video = batch["host_video"].float().sub_(255 * 0.421).div_(255 * 0.165)
    video = video.to(batch["padding_mask"].device)
    return {**batch, "source": {**batch["source"], "video": video}}


def stem_3d(self: Any, video: torch.Tensor, frame_index: torch.Tensor, padding_mask: Any) -> torch.Tensor:
    """The front-end with ``nn.Conv3d`` for its stem, which needs the padding, too."""
    conv, *rest = self.frontend3D
    if padding_mask is not None:
        video = video.masked_fill(padding_mask[..., None, None], 0)
    x = conv(video[:, None]).transpose(1, 2).flatten(0, 1)[frame_index]
    for layer in rest:
        x = layer(x)
    return self.trunk(x).mean(dim=(2, 3))


def drop_video(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "masks": {**batch["masks"], "dropped": "video"}}


COMPILED = "torch.compile"
VARIANTS = [
    Variant("as shipped"),
    Variant("padding goes through the ResNet", change_batch=convolve_padding),
    Variant(
        "ResNet twice (input masking, clean pass for the teacher)",
        model={"masking_type": "input"},
        methods=("av2vec",),
    ),
    Variant(
        "teacher has front-ends of its own (ema_scope full)", model={"ema_scope": "full"}, methods=("av2vec",)
    ),
    Variant("float video from the host", change_batch=float_video),
    Variant("attention without fused kernels", fused_attention=False),
    Variant("stem as nn.Conv3d", stem_3d=True),
    Variant("video dropped from this step", change_batch=drop_video, methods=FUSED),
    Variant("activations recomputed", model={"checkpoint_activations": True}, methods=FUSED),
    Variant(COMPILED, model={"compile": True}),
]


def chosen_variants(args: argparse.Namespace) -> list[Variant]:
    """The rows of ``--method``; the first, with which the others are compared, is always there."""
    variants = [variant for variant in VARIANTS if args.method in variant.methods]
    if args.only:
        return [variant for variant in variants if variant.name in (variants[0].name, args.only)]
    # Of half precision, a CPU computes convolutions over three axes wrongly.
    exact = args.device != "cpu" or args.dtype == torch.float32
    return [
        variant
        for variant in variants
        if (exact or not variant.stem_3d) and (args.compile or variant.name != COMPILED)
    ]


def clip_lengths(frames: int, rng: np.random.Generator) -> list[int]:
    """Lengths of a batch of similar clips, 2 to 6 s as in LRS3, that sum to about ``frames``."""
    longest = int(rng.integers(120, 150))
    lengths = []
    while sum(lengths) < frames - 60:
        lengths.append(int(rng.integers(longest // 2, longest)))
    return lengths


def make_model(method: str, size: str, **keys: Any) -> tuple[Any, Any]:
    """A model in training, and its criterion."""
    config, model, criterion, criterion_config = METHODS[method].parts
    of_size = METHODS[method].sizes.get(size, {})
    grey = {"image_mean": 0.421, "image_std": 0.165}
    cfg = OmegaConf.merge(OmegaConf.structured(config()), grey, of_size, METHODS[method].keys, keys)
    labels = [[CLASSES]] if METHODS[method].clusters else []
    return model(cfg, *labels).train(), criterion(criterion_config(), task=None)


def make_batch(method: str, model: Any, lengths: list[int], device: torch.device) -> dict[str, Any]:
    """``net_input`` of the method, and ``host_video``: the same video in the memory of the host."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    clips, frames = len(lengths), max(lengths)
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    video = torch.randint(0, 256, (clips, 1, frames, 88, 88), dtype=torch.uint8, generator=generator)
    audio = torch.randn(clips, 104, frames, generator=generator)
    if method == "raven":
        samples = (clips, frames * SAMPLES_PER_FRAME)
        audio = torch.randint(-9000, 9000, samples, dtype=torch.int16, generator=generator)
    masks = dict(model.masking.draw(lengths, frames, rng))
    batch: dict[str, Any] = {
        "source": {"audio": audio, "video": video},
        "padding_mask": padding,
        "frame_index": (~padding).flatten().nonzero().squeeze(1),
        "masks": {**masks, "dropped": None} if method in FUSED else masks,
    }
    if method == "distillav":
        batch["teachers"] = {"index": [batch["frame_index"]]}
        model.__dict__["targets"] = random_targets(sum(lengths), device, generator)
    return {**to_device(batch, device), "host_video": video}


def random_targets(
    frames: int, device: torch.device, generator: torch.Generator
) -> Callable[..., list[Target]]:
    """In place of teachers: what DistillAV would read from the disk."""
    (shape,) = TEACHERS
    rows = frames * shape["per_frame"]
    vectors = torch.randn(rows, shape["dim"], generator=generator).to(device)
    posteriors = torch.randn(rows, shape["clusters"], generator=generator).softmax(1).to(device)
    return lambda source, teachers: [Target(vectors, posteriors)]


def run_criterion(method: str, model: Any, criterion: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Loss and sample size of a batch."""
    sample: dict[str, Any] = {key: value for key, value in batch.items() if key != "host_video"}
    sample = {"net_input": sample, "ntokens": 0, "nsentences": 0}
    if METHODS[method].clusters:
        labels = torch.arange(batch["padding_mask"].numel(), device=batch["padding_mask"].device)
        sample["target_list"] = [(4 + labels % (CLASSES - 4)).view(batch["padding_mask"].shape)]
    loss, size, _ = criterion(model, sample)
    return loss, size


def to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value.to(device) if torch.is_tensor(value) else value


STEM_2D, MAPS_2D = 5 * 49 * 44 * 44, (22**2, 11**2, 6**2, 3**2)
STEM_1D, MAPS_1D = 80 * 160, (160, 80, 40, 20)


def resnet_multiply_adds(width: int, stem: int, maps: tuple[int, ...], kernel: int) -> float:
    """Of stem and trunk on one frame, whose stages have maps of so many positions."""
    total, channels_in = float(width * stem), width
    for stage, positions in enumerate(maps):
        out = width << stage
        total += positions * (kernel * out * (channels_in + 3 * out) + (channels_in * out if stage else 0))
        channels_in = out
    return total


def layer_multiply_adds(channels: int, ffn: int, projections: int = 4) -> int:
    """Of the linear layers of a Transformer layer on one frame."""
    return projections * channels * channels + 2 * channels * ffn


def forward_multiply_adds(method: str, cfg: Any, frames: int) -> float:
    """Multiply-adds of a student pass over real frames (convolutions, linear layers), from layer sizes."""
    width, channels = cfg.resnet_width, cfg.encoder_embed_dim
    video = resnet_multiply_adds(width, STEM_2D, MAPS_2D, 9)
    if method != "raven":
        layer = layer_multiply_adds(channels, cfg.encoder_ffn_embed_dim)
        positions = channels * (channels // cfg.conv_pos_groups) * cfg.conv_pos
        return frames * (video + cfg.encoder_layers * layer + positions + 2 * channels * channels)
    audio = resnet_multiply_adds(width, STEM_1D, MAPS_1D, 3)
    layer = layer_multiply_adds(channels, cfg.encoder_ffn_embed_dim, 5)  # one more for relative positions
    own = layer_multiply_adds(cfg.predictor_embed_dim, cfg.predictor_ffn_embed_dim, 5)
    predictors = cfg.predictor_layers_video + (1 + cfg.within_audio) * cfg.predictor_layers_audio
    return frames * (video + audio + 2 * cfg.encoder_layers * layer + predictors * own)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds a second of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = median_time(lambda: a @ b, str(device), 8)
    return size**3 / seconds


class Steps:
    """The steps of a variant, in this process."""

    def __init__(self, variant: Variant, args: argparse.Namespace, lengths: list[int]) -> None:
        self.variant, self.args, self.device = variant, args, torch.device(args.device)
        torch.manual_seed(0)
        self.model, self.criterion = make_model(args.method, args.size, **variant.model)
        self.model.to(self.device, args.dtype)
        self.batch = make_batch(args.method, self.model, lengths, self.device)
        self.useful = 3 * forward_multiply_adds(args.method, self.model.cfg, sum(lengths))
        self.updates = itertools.count(1)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.seconds(args.warmup)

    def step(self) -> None:
        change = self.variant.change_batch
        inputs = change(self.batch) if change else self.batch
        loss, _ = run_criterion(self.args.method, self.model, self.criterion, inputs)
        self.model.zero_grad()
        loss.backward()
        self.model.set_num_updates(next(self.updates))

    def seconds(self, steps: int) -> list[float]:
        stem = mock.patch.object(VisualResNet, "forward", stem_3d) if self.variant.stem_3d else nullcontext()
        with stem, nullcontext() if self.variant.fused_attention else sdpa_kernel(SDPBackend.MATH):
            return times(self.step, self.args.device, steps)

    def facts(self) -> tuple[float, float]:
        """Peak memory in GB (of the device; of the process on a CPU), useful multiply-adds of a step."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9, self.useful
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, self.useful

    def end(self) -> None:
        """Give the memory back."""
        self.model = self.criterion = self.batch = None


class RemoteSteps:
    """`Steps` in a process of their own, whose ``ru_maxrss`` never falls."""

    def __init__(self, *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, other = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(other, *arguments), daemon=True)
        self.process.start()
        other.close()  # that of the process is then the only one: its death ends recv()

    def seconds(self, steps: int) -> list[float]:
        self.connection.send(steps)
        return list(self.connection.recv())

    def facts(self) -> tuple[float, float]:
        self.connection.send(0)
        memory, useful = self.connection.recv()
        return memory, useful

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def serve(connection: Any, *arguments: Any) -> None:
    steps = Steps(*arguments)
    for wanted in iter(connection.recv, None):
        connection.send(steps.seconds(wanted) if wanted else steps.facts())


TOLERANCE = 0.02
"""Of losses in half precision, relative, or absolute for those below 1 (RAVEn's are near 0)."""


def check(args: argparse.Namespace, lengths: list[int]) -> int:
    """Compare the losses of all methods in half precision with those in float32; the exit status."""
    wrong, device = 0, torch.device(args.device)
    dtypes = [torch.float32, torch.bfloat16] + ([torch.float16] if device.type == "cuda" else [])
    print(f"| method | {' | '.join(str(dtype)[6:] for dtype in dtypes)} |\n|---|{'---:|' * len(dtypes)}")
    for name, method in METHODS.items():
        losses = []
        for dtype in dtypes:
            torch.manual_seed(0)
            model, criterion = make_model(name, args.size, **method.calm)
            model.to(device, dtype)
            loss, size = run_criterion(name, model, criterion, make_batch(name, model, lengths, device))
            loss.backward()
            gradients = [each.grad for each in model.parameters() if each.grad is not None]
            finite = all(bool(torch.isfinite(each).all()) for each in gradients)
            losses.append(loss.item() / size if finite or dtype == torch.float16 else float("nan"))
        bound = TOLERANCE * max(1.0, abs(losses[0]))
        right = all(abs(loss - losses[0]) <= bound for loss in losses)
        wrong += not right
        shown = " | ".join(f"{loss:.4f}" for loss in losses)
        print(f"| {name}{'' if right else ' (WRONG)'} | {shown} |", flush=True)
    return 1 if wrong else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="av2vec")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--frames", type=int, default=1000, help="real frames of the batch, about")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="steps before these that do not count")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default="float32")
    parser.add_argument("--compile", action="store_true", help="add a row with model.compile=true")
    parser.add_argument("--only", metavar="ROW", help="this row alone, and the first")
    parser.add_argument("--check", action="store_true", help="losses in half precision against float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write conditions and rows to FILE")
    return parser.parse_args()


def conditions(args: argparse.Namespace, lengths: list[int], peak: float) -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "model": f"{args.method} {args.size}, {str(args.dtype)[6:]}",
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


def print_row(row: dict[str, Any]) -> None:
    cells = (row["step"], f"{row['frames_per_second']:.0f}", f"{row['against_shipped']:.2f} x")
    cells += (f"{row['peak_memory_gb']:.1f}", f"{row['share_of_matrix_peak']:.0%}")
    print("|", " | ".join(cells), "|", flush=True)


def measure(args: argparse.Namespace, lengths: list[int], peak: float) -> Iterator[dict[str, Any]]:
    """The rows of the table, one by one."""

    def row(variant: Variant, seconds: float, ratio: float, memory: float, useful: float) -> dict[str, Any]:
        return {
            "step": variant.name,
            "frames_per_second": sum(lengths) / seconds,
            "against_shipped": ratio,
            "peak_memory_gb": memory,
            "share_of_matrix_peak": useful / seconds / peak,
        }

    on_gpu = args.device.startswith("cuda")  # its speed is steady, and it may not hold two models
    start = Steps if on_gpu else RemoteSteps
    first, *others = chosen_variants(args)
    shipped = start(first, args, lengths)
    usual = shipped.seconds(args.steps)
    yield row(first, median(usual), 1.0, *shipped.facts())
    if on_gpu:
        shipped.end()
    for variant in others:
        steps = start(variant, args, lengths)
        pairs = [
            (usual[number] if on_gpu else shipped.seconds(1)[0], steps.seconds(1)[0])
            for number in range(args.steps)
        ]
        ratio = median(before / after for before, after in pairs)
        yield row(variant, median(after for _, after in pairs), ratio, *steps.facts())
        steps.end()
    if not on_gpu:
        shipped.end()


def main() -> int:
    args = parse_arguments()
    lengths = clip_lengths(args.frames, np.random.default_rng(1))
    if args.check:
        return check(args, lengths)
    # The matrix product, too, runs in a worker: Linux hands this process's own peak memory down to the next.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(matrix_peak, (torch.device(args.device), args.dtype))
    heading = conditions(args, lengths, peak)
    print_heading(heading)
    rows: list[dict[str, Any]] = []
    for row in measure(args, lengths, peak):
        rows.append(row)
        print_row(row)
        if args.json:  # after each row: an interrupted run keeps what it has
            write_atomically(args.json, json.dumps({**heading, "rows": rows}, indent=1).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
