"""A recipe as `fairseq-hydra-train` would read it, without starting anything.

What training with a recipe costs: updates an epoch, multiply-adds, memory, checkpoints.

Multiply-adds are counted, memory is estimated from the layers: on the CPU, AV2vec base at 1040 real of 1300
frames measures 8.0 GB (benchmarks/training_step.py), the estimate is 7.5.

Multiply-adds of an update: passes of what is trained, of what is frozen, and of a teacher beside it.

How fast a GPU trains: measured by the benchmark, or assumed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import tasks
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.initialize import add_defaults, hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

import av_ssl
import av_ssl.tasks
from av_ssl.classification.classifier import AVClassifier
from av_ssl.classification.lupi import LupiStudent
from av_ssl.data.classes import Segmentation
from av_ssl.errors import DataError
from av_ssl.modules.frontends import VisualResNet
from av_ssl.modules.spectrogram_frontend import STACK, SpectrogramResNet
from av_ssl.modules.transformer import TransformerEncoder
from av_ssl.tasks.classification import ClassificationTask


def read_recipe(path: Path, data: Path, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration of the YAML file `path` for the folder `data`, with all defaults.

    `overrides` are hydra's, such as `dataset.max_tokens=1000`. Raises DataError when the file is missing, is
    no recipe, or does not fit the overrides.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file; name the YAML of a recipe, e.g. one of examples/*/conf"
        )
    hydra_init(path.stem)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent.absolute())):
            cfg = compose(path.stem, list(overrides))
        # Set here and not by an override, in which a path may have no blank, comma or equals sign.
        OmegaConf.set_struct(cfg, False)
        cfg.task.data, cfg.common.user_dir = str(data), str(Path(av_ssl.__file__).parent)
        add_defaults(cfg)
        whole = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except Exception as error:  # hydra, omegaconf, antlr and PyYAML each have errors of their own
        raise DataError(f"{path}: is no recipe, or not with {list(overrides)}: {error}") from error
    finally:
        GlobalHydra.instance().clear()
    return OmegaConf.create(whole)


def build_on_no_device(cfg: Any, path: Path) -> tuple[Any, torch.nn.Module]:
    """Task and model of a recipe; the model has shapes but no memory.

    Sets `optimization.update_freq`, as the task does when training. A fine-tuning recipe takes the encoder's
    size from its checkpoint. Teachers and students of classifiers are not read. Raises DataError when the
    encoder's checkpoint is not given, or the model cannot be built.
    """
    if OmegaConf.is_missing(cfg.model, "w2v_path"):
        raise DataError(f"{path}: add model.w2v_path=CHECKPOINT, which says how large the encoder is")
    if "no_pretrained_weights" in cfg.model:
        cfg.model.no_pretrained_weights = True  # sizes are all that is wanted
    for key in ("teacher_path", "init_student_from"):
        if OmegaConf.is_missing(cfg.model, key):
            cfg.model[key] = ""
    try:
        task = tasks.setup_task(cfg.task)
        with torch.device("meta"):
            if not isinstance(task, ClassificationTask):
                return task, task.build_model(cfg.model)
            task.complete(cfg.model)
            return task, task.build_model(cfg.model, from_checkpoint=True)
    except DataError:
        raise
    except (ValueError, OmegaConfBaseException) as error:
        raise DataError(f"{path}: its model cannot be built: {error}") from error


TOKENS_PER_FRAME = 0.2  # of a decoder: about five pieces of words a second
SAVED_PER_CHANNEL = 17  # values that a Transformer layer keeps for its backward pass, per frame and channel
SAVED_PER_MAP = 3  # outputs of convolution, batch norm and activation
RESNETS = (VisualResNet, SpectrogramResNet)
OPTIMIZER_BYTES = 8  # a parameter: two moments of Adam in float32


@dataclass(frozen=True)
class Epoch:
    """One pass over the clips: batches of one GPU each, real frames and frames with padding."""

    clips: int
    batches: int
    frames: int
    padded_frames: int

    @classmethod
    def of(
        cls, lengths: Sequence[int], max_tokens: int | None, max_clips: int | None, multiple: int
    ) -> Epoch:
        """Batches as fairseq makes them of clips of so many frames, longest first."""
        sizes = np.sort(np.asarray(lengths, np.int64))[::-1].copy()
        batches = batch_by_size(
            np.arange(len(sizes)),
            lambda index: sizes[index],
            num_tokens_vec=sizes,
            max_tokens=max_tokens,
            max_sentences=max_clips,
            required_batch_size_multiple=multiple,
        )
        padded = sum(int(sizes[batch].max()) * len(batch) for batch in batches)
        return cls(len(sizes), len(batches), int(sizes.sum()), padded)

    def updates(self, gpus: int, update_freq: int) -> int:
        """Updates of an epoch on so many GPUs."""
        steps = ceil(self.batches / gpus)
        return max(1, ceil(steps / update_freq))


def multiply_adds(model: nn.Module, picture: int, frozen: bool = False) -> float:
    """Of a forward pass of the student, a video frame, at pictures of `picture` x `picture` pixels.

    Convolutions and linear layers; linear ones without gradient, as a teacher's, only with `frozen`.
    """
    resnets = [module for module in model.modules() if isinstance(module, RESNETS)]
    inside = {id(layer) for one in resnets if isinstance(one, VisualResNet) for layer in one.modules()}
    total = float(sum(layer.weight.numel() * area for r in resnets for layer, area in _maps(r, picture)))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv1d) and id(layer) not in inside:
            counts = frozen or any(parameter.requires_grad for parameter in layer.parameters())
            share = TOKENS_PER_FRAME if "decoder" in name.split(".") else 1.0
            total += counts * share * _weights(layer)
    return total


def _weights(layer: nn.Module) -> int:
    """Of a layer without its bias; with weight norm they are not one tensor."""
    return sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() > 1)


def _maps(resnet: nn.Module, picture: int) -> list[tuple[nn.Conv2d | nn.Conv3d, int]]:
    """Every convolution and the positions of its output, a video frame."""
    if isinstance(resnet, SpectrogramResNet):
        return _spectrogram_maps(resnet)
    assert isinstance(resnet, VisualResNet)
    stem = -(-picture // 2)
    maps: list[tuple[nn.Conv2d | nn.Conv3d, int]] = [
        (layer, stem**2) for layer in resnet.frontend3D if isinstance(layer, nn.Conv3d)
    ]
    side = -(-stem // 2)
    for stage in resnet.trunk.children():
        if next(layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)).stride[0] == 2:
            side = -(-side // 2)
        maps += [(layer, side**2) for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
    return maps


def _spectrogram_maps(resnet: SpectrogramResNet) -> list[tuple[nn.Conv2d | nn.Conv3d, int]]:
    rows, columns = resnet.bands, STACK
    maps: list[tuple[nn.Conv2d | nn.Conv3d, int]] = []
    for part in (resnet.stem, *resnet.stages):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        rows, columns = -(-rows // layers[0].stride[0]), columns // layers[0].stride[1]
        maps += [(layer, rows * columns) for layer in layers]
    return maps


class Memory(NamedTuple):
    """Bytes on one GPU: parameters with gradients and optimizer, and what the backward pass needs."""

    states: float
    activations: float


def memory(model: nn.Module, picture: int, frames: int, half: bool, averaged: bool = False) -> Memory:
    """Estimate for batches of `frames` frames.

    `half`: fp16 or bf16, with float32 copies of the weights. `averaged`: a teacher is their moving average.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    fixed = sum(parameter.numel() for parameter in model.parameters()) - trained
    width = 2 if half else 4
    copies = (
        2 * width + OPTIMIZER_BYTES + (8 if half else 0)
    )  # weights, gradients; float32 ones beside halves
    copies += 4 if averaged else 0
    values = 0.0
    for module in model.modules():
        if isinstance(module, RESNETS):
            values += sum(SAVED_PER_MAP * conv.out_channels * area for conv, area in _maps(module, picture))
        if isinstance(module, TransformerEncoder):
            values += SAVED_PER_CHANNEL * sum(p.shape[0] for p in _attention_outputs(module))
    return Memory(trained * copies + fixed * 4, values * width * frames)


def _attention_outputs(encoder: nn.Module) -> list[nn.Parameter]:
    """One weight `[C, C]` a layer."""
    return [p for name, p in encoder.named_parameters() if name.endswith("out_proj.weight")]


def checkpoint_bytes(model: nn.Module, half: bool) -> int:
    """Size of a training checkpoint: weights, and the optimizer's moments of those that are trained."""
    return sum(
        parameter.numel() * ((2 if half else 4) + (OPTIMIZER_BYTES if parameter.requires_grad else 0))
        for parameter in model.parameters()
    )


def checkpoints_kept(cfg: Any, max_update: int, updates_per_epoch: int) -> int:
    """Checkpoints that lie on the disk at the end of a run: last, best, and those kept on the way."""
    options = cfg.checkpoint
    kept = 2 - bool(cfg.dataset.disable_validation)
    if options.save_interval_updates > 0:
        all_of_them = max_update // options.save_interval_updates
        kept += all_of_them if options.keep_interval_updates < 0 else options.keep_interval_updates
    if not options.no_epoch_checkpoints:
        epochs = -(-max_update // updates_per_epoch) // max(1, options.save_interval)
        kept += epochs if options.keep_last_epochs < 0 else min(epochs, options.keep_last_epochs)
    return kept


TRAINING_PASSES = 3  # forward and backward, in forward passes: what the benchmark counts as useful work, too


@dataclass(frozen=True)
class StepCost:
    """Multiply-adds a frame.

    Args:
        forward: of a forward pass of the student.
        passes: of these in an update; one where nothing in it is trained.
        teacher: of a teacher's forward pass, 0 without one.
        teacher_bytes: of the weights of a teacher that is no part of the model.
        teacher_note: what to say of the teacher.
    """

    forward: float
    passes: int = TRAINING_PASSES
    teacher: float = 0.0
    teacher_bytes: int = 0
    teacher_note: str = ""

    @property
    def update(self) -> float:
        return self.passes * self.forward + self.teacher


def step_cost(cfg: Any, task: Any, model: nn.Module, longest: int) -> StepCost:
    """What a frame of a recipe's batches costs.

    Of classifiers the encoder counts; what is behind it runs once a clip or segment.

    Args:
        cfg: the recipe.
        task, model: built of it.
        longest: frames of a training crop.

    Raises DataError when the teacher's file cannot be used.
    """
    picture = cfg.task.image_crop_size
    if not isinstance(model, AVClassifier):
        return StepCost(multiply_adds(model, picture))
    segments = Segmentation.of(cfg.task.segment_frames, cfg.task.segment_hop)
    repeated = 1.0 if segments is None else len(segments.starts(longest)) * segments.length / longest
    backbone = model.encoder.backbone
    trained = any(parameter.requires_grad for parameter in backbone.parameters())
    forward = repeated * multiply_adds(backbone, picture, frozen=True)
    passes = TRAINING_PASSES if trained else 1
    if not isinstance(model, LupiStudent) or model.phase == "head":
        return StepCost(forward, passes)
    if not cfg.model.teacher_path:
        note = "; without the teacher, whose file is not given: add model.teacher_path=TEACHER"
        return StepCost(forward, passes, teacher_note=note)
    teacher = task.load_teacher(cfg.model).model
    cost = repeated * multiply_adds(teacher.encoder.backbone, picture, frozen=True)
    weights = sum(4 * parameter.numel() for parameter in teacher.parameters())
    return StepCost(forward, passes, cost, weights, f"; {cost / 1e6:,.0f} M of the teacher")


USUAL_SHARE = 0.3  # of a GPU's matrix peak, where nothing was measured
BENCHMARK_ROW = "as shipped"


@dataclass(frozen=True)
class Speed:
    """Useful multiply-adds a second of one GPU (three forward passes of the student), and their source."""

    multiply_adds: float
    source: str

    @classmethod
    def assumed(cls, tflops: float) -> Speed:
        """A usual share of the peak of matrix products."""
        source = f"ESTIMATE: {USUAL_SHARE:.0%} of {tflops:g} TFLOP/s; give --measured for yours"
        return cls(USUAL_SHARE * tflops * 1e12 / 2, source)

    @classmethod
    def measured(cls, path: Path) -> Speed:
        """Of the file that benchmarks/training_step.py --json writes; raises DataError for another one."""
        try:
            content = json.loads(path.read_text())
            row = next(row for row in content["rows"] if row["step"] == BENCHMARK_ROW)
            rate = row["share_of_matrix_peak"] * content["matrix_peak_gflops"] * 1e9 / 2
            source = (
                f"measured on {content['machine']}: {row['frames_per_second']:,.0f} frames/s of AV2vec "
                f"{content['size']}, {content['dtype']}, {row['peak_memory_gb']:.1f} GB for "
                f"{content['real_frames']:,} real of {content['padded_frames']:,} frames"
            )
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise DataError(
                f"{path}: holds no step time ({type(error).__name__}: {error}); make it with "
                "benchmarks/training_step.py --json"
            ) from error
        return cls(float(rate), source)
