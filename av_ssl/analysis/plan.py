"""What training with a recipe costs on a data folder: updates, hours, memory and checkpoints.

Batches are counted as fairseq makes them.  Hours and memory come from training steps that are timed on this
machine: run the command where the training will run.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import tasks
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.trainer import Trainer
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

import av_ssl
import av_ssl.tasks
from av_ssl.errors import DataError
from av_ssl.layout import FRAME_RATE
from av_ssl_fairseq_hook.mistakes import Mistake, check_schedule, one_line
from av_ssl_fairseq_hook.ranges import check_values

OPTIMIZER_BYTES = 8  # per parameter: two moments of Adam in float32
MANY_EPOCHS = 1000
CHECKPOINT_KEYS = ("w2v_path", "teacher_path", "init_student_from")

Row = tuple[str, str]


def plan_training(recipe: Path, data: Path, overrides: Sequence[str] = (), steps: int = 2) -> list[Row]:
    """Names and values of what a training costs.

    Args:
        recipe: YAML file.
        data: folder with ``train.tsv``.
        overrides: hydra's, such as ``dataset.max_tokens=1000``.
        steps: training steps to time; 0: nothing is timed, and the model gets no memory.

    Raises:
        DataError: the recipe, the data or a checkpoint cannot be used, or the run would never end.
    """
    cfg = read_recipe(recipe, data.absolute(), overrides)
    for key in CHECKPOINT_KEYS:
        if OmegaConf.is_missing(cfg.model, key):
            raise DataError(f"{recipe}: add model.{key}=CHECKPOINT, without which the model cannot be built")
    on_gpu = torch.cuda.is_available() and not cfg.common.cpu
    if not on_gpu:
        cfg.common.cpu, cfg.common.fp16 = True, False
    try:
        check_schedule(cfg)
    except Mistake as error:
        raise DataError(f"{recipe}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="av-ssl-plan-") as folder:
        cfg.checkpoint.save_dir = cfg.task.bad_clips_dir = folder
        return plan_of(cfg, recipe, steps, on_gpu)


def plan_of(cfg: Any, recipe: Path, steps: int, on_gpu: bool) -> list[Row]:
    """See `plan_training`; may write into ``checkpoint.save_dir``."""
    task, model = build(cfg, recipe, with_memory=steps > 0)
    clips, kept = task.read_split("train")
    frames = [clips[index].frames for index in kept]
    longest = cfg.task.max_trim_sample_size or max(frames)
    epoch = Epoch.of(
        [min(each, longest) for each in frames],
        cfg.dataset.max_tokens,
        cfg.dataset.batch_size,
        cfg.dataset.required_batch_size_multiple,
    )
    gpus = cfg.distributed_training.distributed_world_size
    accumulate = int(cfg.optimization.update_freq[0])
    per_epoch = epoch.updates(gpus, accumulate)
    updates = cfg.optimization.max_update or per_epoch * cfg.optimization.max_epoch
    if not updates:
        raise DataError(f"{recipe}: sets neither optimization.max_update nor max_epoch: it would never end")
    saved = checkpoints_kept(cfg, updates, per_epoch)
    size = checkpoint_bytes(model, bool(cfg.common.fp16 or cfg.common.bf16))
    seconds = epoch.frames / FRAME_RATE
    left_out = " (the others are too short or too long)" if epoch.clips < len(clips) else ""
    rows = [
        ("clips", f"{epoch.clips:,} of {len(clips):,}{left_out}"),
        (
            "hours of video",
            f"{seconds / 3600:.1f}, padding adds {epoch.padded_frames / epoch.frames - 1:.1%}",
        ),
        ("batches an epoch", f"{epoch.batches:,} of up to {epoch.largest:,} frames"),
        ("updates an epoch", f"{per_epoch:,} ({gpus} GPUs x {accumulate} micro-batches)"),
        ("frames an update", f"{epoch.frames / per_epoch:,.0f} ({seconds / per_epoch:.0f} s)"),
        ("updates", f"{updates:,} = {updates / per_epoch:,.1f} epochs{remark(updates, per_epoch)}"),
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:,.1f} M"),
        ("disk, checkpoints", f"{saved * size / 1e9:.1f} GB: {saved} of {size / 1e9:.1f} GB, estimate"),
    ]
    if steps > 0:
        duration, memory = measure(cfg, task, model, steps, updates // 2)
        hours = updates * accumulate * duration / 3600
        place = torch.cuda.get_device_name() if on_gpu else "this CPU"
        rows += [
            ("seconds a micro-batch", f"{duration:.2f}, mean of {steps} on {place}"),
            ("hours", f"{hours:,.1f} on {gpus} such devices"),
            ("peak memory", f"{memory / 1e9:.1f} GB"),
        ]
    return rows


def remark(updates: int, per_epoch: int) -> str:
    """What to say of a run with very many epochs: its recipe is of a larger corpus."""
    if updates <= MANY_EPOCHS * per_epoch:
        return ""
    return (
        f", very many for so little data: {MANY_EPOCHS} epochs are optimization.max_update="
        f"{MANY_EPOCHS * per_epoch} (scale the schedule, too)"
    )


def read_recipe(path: Path, data: Path, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration of the YAML file ``path`` for the folder ``data``, with all defaults.

    ``overrides`` are hydra's, such as ``dataset.max_tokens=1000``. Raises DataError when the file is missing,
    is no recipe, or does not fit the overrides.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; name a recipe, e.g. one of examples/*/conf")
    hydra_init(path.stem)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent.absolute())):
            cfg = compose(path.stem, list(overrides))
        # Set here and not by an override, in which a path may have no blank, comma or equals sign.
        OmegaConf.set_struct(cfg, False)
        cfg.task.data, cfg.common.user_dir = str(data), str(Path(av_ssl.__file__).parent)
        add_defaults(cfg)
        check_values(cfg)
        whole = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except Exception as error:  # hydra, omegaconf, antlr and PyYAML each have errors of their own
        text = one_line(error) or " ".join(str(error).split())
        raise DataError(f"{path}: is no recipe, or not with {list(overrides)}: {text}") from error
    finally:
        GlobalHydra.instance().clear()
    return OmegaConf.create(whole)


def build(cfg: Any, recipe: Path, with_memory: bool) -> tuple[Any, nn.Module]:
    """Task and model of a recipe; sets ``optimization.update_freq``, as the task does when training.

    Without memory the model has shapes only, and reads no weights. Raises DataError when it cannot be built.
    """
    if not with_memory and "no_pretrained_weights" in cfg.model:
        cfg.model.no_pretrained_weights = True
    try:
        task = tasks.setup_task(cfg.task)
        with torch.device("cpu" if with_memory else "meta"):
            return task, task.build_model(cfg.model)
    except DataError:
        raise
    except (ValueError, OmegaConfBaseException) as error:
        raise DataError(f"{recipe}: its model cannot be built: {error}") from error


@dataclass(frozen=True)
class Epoch:
    """One pass over the clips: batches of one GPU each, real frames and frames with padding."""

    clips: int
    batches: int
    frames: int
    padded_frames: int
    largest: int  # frames of the largest batch, with padding

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
        padded = [int(sizes[batch].max()) * len(batch) for batch in batches]
        return cls(len(sizes), len(batches), int(sizes.sum()), sum(padded), max(padded))

    def updates(self, gpus: int, update_freq: int) -> int:
        return max(1, ceil(ceil(self.batches / gpus) / update_freq))


def measure(cfg: Any, task: Any, model: nn.Module, steps: int, update: int) -> tuple[float, float]:
    """Mean seconds of a training step on a micro-batch, and peak memory in bytes.

    ``steps`` batches spread over an epoch are timed, after the largest one, which is not. The model is set to
    ``update`` updates, since a frozen encoder may be unfrozen by then.
    """
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    task.load_dataset("train")
    dataset = task.dataset("train")
    options = cfg.dataset
    batches = dataset.batch_by_size(
        dataset.ordered_indices(),
        max_tokens=options.max_tokens,
        max_sentences=options.batch_size,
        required_batch_size_multiple=options.required_batch_size_multiple,
    )
    largest = max(batches, key=lambda batch: len(batch) * max(dataset.num_tokens(index) for index in batch))
    spread = [batches[k * len(batches) // steps] for k in range(steps)]
    seconds = []
    trainer.set_num_updates(update)
    for batch in [largest, *spread]:
        sample = dataset.collater([dataset[index] for index in batch])
        start = time.perf_counter()
        trainer.train_step([sample])
        if trainer.cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() if trainer.cuda else 0
    memory = memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return sum(seconds[1:]) / steps, memory


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
