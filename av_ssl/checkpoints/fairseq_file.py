"""A model in fairseq's checkpoint format, AV-HuBERT's published files included."""

import io
import pickle
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE
from torch import Tensor

from av_ssl.checkpoints.stored import StoredModel, plain_config
from av_ssl.data.classes import CLASSES
from av_ssl.data.text import dictionary_of, stored_label_sets, text_state
from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl_fairseq_hook.checkpoints import allow_classes, explained

AV_HUBERT_TASK = "av_hubert_pretraining"
"""Its checkpoints hold dictionaries as pickled objects, whether pre-trained or fine-tuned."""


def read_state(path: Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU, without running code from it.

    Raises:
        DataError: it is cut off, no checkpoint, or asks for code to be run.
    """
    allow_classes()
    try:
        with path.open("rb") as file, explained(path):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(str(error)) from error


def is_fairseq(state: Any) -> bool:
    """Whether it is a checkpoint with a configuration, as fairseq-hydra-train writes it."""
    return isinstance(state, dict) and isinstance(state.get("model"), dict) and state.get("cfg") is not None


def stored_model(state: Any, path: Path) -> StoredModel:
    """The model of what :func:`read_state` gave.

    Raises:
        DataError: it is no checkpoint with a configuration.
    """
    if not is_fairseq(state):
        keys = ", ".join(sorted(map(str, state))[:8]) if isinstance(state, dict) else type(state).__name__
        raise DataError(
            f"{path}: is no fairseq checkpoint with a configuration (it holds {keys}); needed is one that "
            "fairseq-hydra-train wrote, or AV-HuBERT's or RAVEn's published files"
        )
    try:
        task_state = state.get("task_state") or {}
        return StoredModel(
            path=path,
            cfg=plain_config(state["cfg"]),
            tensors={name: value for name, value in state["model"].items() if isinstance(value, Tensor)},
            text=text_state(task_state, str(path)),
            label_sets=stored_label_sets(task_state, str(path)),
            classes=[str(name) for name in task_state.get(CLASSES) or []],
        )
    except (TypeError, AttributeError, LookupError) as error:
        raise DataError(f"{path}: its entries are damaged ({error}); copy or download it again") from error


def write_fairseq(stored: StoredModel, path: Path) -> None:
    """Write a checkpoint that fairseq's commands read; DataError if that cannot be done."""
    content = io.BytesIO()
    torch.save(fairseq_state(stored), content)
    write_atomically(path, content.getvalue())


def fairseq_state(stored: StoredModel) -> dict[str, Any]:
    """A checkpoint as fairseq writes it, without optimizer: it can be decoded and fine-tuned, not resumed."""
    criterion = (stored.cfg.get("criterion") or {}).get("_name")
    return {
        "args": None,
        "cfg": stored.cfg,
        "model": stored.tensors,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": criterion,
                "optimizer_name": None,
                "lr_scheduler_state": {"best": None},
                "num_updates": 0,
            }
        ],
        "task_state": task_state(stored),
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": None},
        "last_optimizer_state": None,
    }


def task_state(stored: StoredModel) -> dict[str, Any]:
    """Dictionaries and tokenizer in the form that the stored task reads."""
    origin = str(stored.path)
    state: dict[str, Any] = {}
    if stored.classes:
        state[CLASSES] = stored.classes
    if stored.label_sets:
        state["dictionaries"] = [dictionary_of(symbols, origin) for symbols in stored.label_sets]
    if stored.text is None:
        return state
    if stored.task_cfg.get("_name") != AV_HUBERT_TASK:
        return {**state, **stored.text}
    state["target_dictionary"] = dictionary_of(stored.text["symbols"], origin)
    if stored.text["tokenizer"] is not None:
        state["s2s_tokenizer"] = pickled_tokenizer(stored.text["tokenizer"].numpy().tobytes())
    return state


def pickled_tokenizer(model: bytes) -> Any:
    """fairseq's tokenizer of a serialised sentencepiece model; the class itself wants a file's name."""
    tokenizer = object.__new__(SentencepieceBPE)
    tokenizer.enable_sampling, tokenizer.alpha = False, None
    tokenizer.sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tokenizer
