"""Build a model from a checkpoint: this package's own, AV-HuBERT's and RAVEn's published files.

Only the file is needed: no data folder, no dictionary, no pre-training checkpoint.  fairseq's commands read
the same files by ``load_model_ensemble_and_task``.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import MODEL_DATACLASS_REGISTRY, BaseFairseqModel, build_model
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from av_ssl.checkpoints.files import read_stored
from av_ssl.checkpoints.raven_weights import check_features
from av_ssl.checkpoints.stored import (
    Differences,
    StoredModel,
    compare,
    encoder_prefix,
    parts,
    pretraining_only,
)
from av_ssl.compat.keys import rename_old_keys
from av_ssl.data.text import TextEncoder, dictionary_of
from av_ssl.errors import DataError
from av_ssl.targets.ema import TEACHER_PREFIX, under_prefix

logger = logging.getLogger(__name__)

UNBUILDABLE = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError,
    OmegaConfBaseException,
)  # fmt: skip
"""What omegaconf, torch and the models raise for values of which no model can be built."""


class StoredTask:
    """The part of a task that models use while they are built."""

    for_training = False
    pretrained = None

    def __init__(self, stored: StoredModel) -> None:
        self.target_dictionary: Any = None
        if stored.text is not None:
            self.target_dictionary = dictionary_of(stored.text["symbols"], str(stored.path))
        self.dictionaries: list[Sized] = [dictionary_of(each, str(stored.path)) for each in stored.label_sets]
        classes = stored.tensors.get("label_embs_concat")
        if not self.dictionaries and classes is not None:
            self.dictionaries = [range(len(classes))]


def load(path: str | Path) -> BaseFairseqModel:
    """Load a model from ``.pt`` or ``.safetensors``, on the CPU, in eval mode, running no code from the file.

    Returns:
        The model, with ``cfg`` (its configuration), ``task_cfg`` (a dict: the stored task's keys),
        ``text_encoder`` (dictionary and tokenizer of a recogniser; None for other models) and ``class_names``
        (names of a classifier's classes by id; empty for other models), ``stored`` (all else that the file
        holds, without the tensors).

    Raises:
        DataError: the file is missing, cut off, no checkpoint, or asks for code to be run; it holds a model
            that is unknown here, or not all of the model's tensors.
    """
    return assemble(read_stored(path))


def load_untrained(path: str | Path, seed: int) -> BaseFairseqModel:
    """As :func:`load`, with random weights of this seed: an untrained baseline."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return assemble(read_stored(path), trained=False)


def assemble(stored: StoredModel, trained: bool = True) -> BaseFairseqModel:
    """The model of a file that has been read; see :func:`load`.  ``trained=False``: with initial weights."""
    try:
        cfg = build_config(stored)
        model = build_model(cfg, StoredTask(stored), from_checkpoint=True)
    except DataError:
        raise
    except UNBUILDABLE as error:
        one_line = " ".join(str(error).split())
        raise DataError(f"{stored.path}: its model cannot be built ({one_line})") from error
    if trained:
        load_tensors(model, stored)
        if stored.bare:
            check_features(model, stored.path)
    model.cfg = cfg
    model.task_cfg = stored.task_cfg
    model.text_encoder = text_encoder(stored)
    model.class_names = stored.classes
    model.stored = dataclasses.replace(stored, tensors={})
    return model.eval()


def build_config(stored: StoredModel) -> Any:
    """The model's configuration with defaults filled in; unknown keys cause one warning."""
    own = {
        name: structure
        for name, structure in MODEL_DATACLASS_REGISTRY.items()
        if structure is not None and structure.__module__.startswith("av_ssl.")
    }
    name = stored.model_cfg.get("_name")
    if not isinstance(name, str) or name not in own:
        raise DataError(
            f"{stored.path} holds a model {name!r}; those that can be loaded are {', '.join(sorted(own))}"
        )
    # The task's section is there for defaults that refer to it, such as ${task.image_mean}.
    root = OmegaConf.create({"model": stored.model_cfg, "task": stored.task_cfg})
    rename_old_keys(own[name], root.model)
    unknown = sorted(set(root.model) - {field.name for field in dataclasses.fields(own[name])})
    if unknown:
        logger.warning(
            "%s: ignoring keys that %s does not know here: %s", stored.path, name, ", ".join(unknown)
        )
    return merge_with_parent(own[name](), root.model, remove_missing=True)


def load_tensors(model: BaseFairseqModel, stored: StoredModel) -> None:
    """Copy the stored tensors, and log which matched; heads of pre-training may differ."""
    own = nn.Module.state_dict(model)
    teacher = {name for name in stored.tensors if name.startswith(TEACHER_PREFIX)}
    wanted = {name: tensor for name, tensor in stored.tensors.items() if name not in teacher}
    found = compare(own, wanted)
    head = heads_of_pretraining(model, own)
    fatal = Differences(*([name for name in names if not head(name)] for names in found))
    if any(fatal):
        raise DataError(
            f"{stored.path} does not hold the tensors of its configuration ({stored.model_cfg['_name']}): "
            f"{fatal}"
        )
    # Missing ones stay at random; every fine-tuned file of AV-HuBERT's has some that are left over.
    logger.log(
        logging.WARNING if found.missing or found.reshaped else logging.INFO,
        "%s: loaded %d tensors; missing: %s; left over: %s%s",
        stored.path, len(own.keys() & wanted.keys()) - len(found.reshaped),
        ", ".join(found.missing) or "none", ", ".join(found.left_over) or "none",
        f"; of another size: {', '.join(found.reshaped)}" if found.reshaped else "",
    )  # fmt: skip
    kept = own.keys() - set(found.reshaped) | teacher
    model.load_state_dict({name: x for name, x in stored.tensors.items() if name in kept}, strict=False)


def heads_of_pretraining(model: BaseFairseqModel, own: Mapping[str, Tensor]) -> Callable[[str], bool]:
    """Whether only pre-training uses a tensor: it is of no part of the encoder, or declared by a model class.

    Other programs have other heads, such as those of DistillAV's authors.
    """
    prefix = "" if hasattr(model, "pretraining_only") else encoder_prefix(own)
    if prefix is None:
        return lambda name: False
    declared = pretraining_only()
    encoder = parts(x for x in under_prefix(own, prefix) if not x.startswith(declared))

    def is_head(name: str) -> bool:
        inner = name.removeprefix(prefix)
        return name.startswith(prefix) and (
            inner.startswith(declared) or inner.partition(".")[0] not in encoder
        )

    return is_head


def text_encoder(stored: StoredModel) -> TextEncoder | None:
    if stored.text is None:
        return None
    tokenizer = stored.text["tokenizer"]
    model = None if tokenizer is None else tokenizer.numpy().tobytes()
    return TextEncoder(dictionary_of(stored.text["symbols"], str(stored.path)), model, str(stored.path))
