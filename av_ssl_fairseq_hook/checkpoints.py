"""The classes that checkpoints of fairseq hold besides tensors, for `torch.load(weights_only=True)`.

From torch 2.6 on that is the default: a class that is not on torch's list is refused, which keeps a
checkpoint from running code.  Inert classes are put on that list here; the check is never switched off.  What
is refused, or is no checkpoint at all, is named (`explained`): torch's own text names no file, and advises to
switch the check off.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import importlib
import os
import pickle
import re
import traceback
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE

multiarray = importlib.import_module(
    "numpy._core.multiarray" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core.multiarray"
)

INERT = {
    "fairseq.data.dictionary": ["Dictionary"],
    "fairseq.distributed.utils": ["_TensorPlaceholder"],  # what a worker receives a checkpoint as
    "omegaconf": ["DictConfig", "ListConfig"],
    "omegaconf.base": ["ContainerMetadata", "Metadata"],
    "omegaconf.nodes": ["AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"],
    "sentencepiece": ["SentencePieceProcessor"],
}


completions: list[Callable[[dict[str, Any], str], None]] = []
"""Called with what a checkpoint holds and its path, after fairseq read it: they add what old files lack."""


class Tokenizer(SentencepieceBPE):
    """What a pickled `SentencepieceBPE` is read as.

    The class itself, called by a pickle with arguments, would fetch its model from a file or URL that the
    pickle names; this one can only be filled with a state.
    """

    def __init__(self) -> None:
        """Leave everything to the state."""


def _classes() -> list[Any]:
    """The allow-list: classes, and pairs of a class or function and the name under which pickles hold it."""
    allowed: list[Any] = [argparse.Namespace, collections.defaultdict, dict, list, int, typing.Any]
    allowed += [np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}]
    for module_name, names in INERT.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # sentencepiece is optional where nothing is tokenized
        allowed += [getattr(module, name) for name in names]
    allowed += [Tokenizer, (Tokenizer, f"{SentencepieceBPE.__module__}.{SentencepieceBPE.__qualname__}")]
    for package in ("core", "_core"):  # numpy 2 renamed it, and checkpoints are exchanged between both
        for function in (multiarray.scalar, multiarray._reconstruct):
            allowed.append((function, f"numpy.{package}.multiarray.{function.__name__}"))
    return allowed


def allow_classes() -> None:
    """Put the classes on torch's list.

    Before torch 2.6, stock fairseq reads checkpoints without the check, and the list takes no pairs: nothing
    is done, and only checkpoints from people one trusts should be read there.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6):
        torch.serialization.add_safe_globals(_classes())


@contextlib.contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors of `torch.load` name the file and the fix, as `pickle.UnpicklingError`.

    Damaged bytes can make it raise nearly anything: what counts is that it was torch that raised.
    """
    try:
        yield
    except Exception as error:
        if not _from_torch(error):
            raise  # of fairseq: the file was read, and lacks an entry
        raise pickle.UnpicklingError(f"{os.fspath(path)}: {_reason(path, error)}") from error


def _from_torch(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "torch.serialization" for frame, _ in frames)


def _reason(path: str | os.PathLike[str], error: Exception) -> str:
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"refused, for it asks for {refused[1]}, which is not among the harmless classes that "
            "checkpoints need: reading it could run code of whoever made it (Weights only load failed). "
            "Get the checkpoint from its origin again; if you trust it, load and save it without that object"
        )
    with contextlib.suppress(OSError), open(path, "rb") as file:
        begin = file.read(512).lstrip().lower()
        if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "is a web page, not a checkpoint: the download failed or asked for a login; repeat it"
        if begin.startswith(b"pk\x03\x04") and isinstance(error, RuntimeError):
            return f"is cut off or damaged ({_first_line(error)}); copy or download it again"
    if isinstance(error, TypeError):
        return f"refused, for it calls a class with arguments of its own choice ({error}); do not use it"
    return (
        f"is no checkpoint, or is cut off (torch: {_first_line(error) or type(error).__name__}); "
        "copy or download it again"
    )


def _first_line(error: Exception) -> str:
    """What went wrong, without torch's advice to switch the check off."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1 if "weights_only" in lines[0] else 0].partition(". ")[0].strip()


def explain_unreadable(module: ModuleType) -> None:
    """Have `fairseq.checkpoint_utils` name the checkpoint that it cannot read."""
    stock: Callable[..., Any] = module.load_checkpoint_to_cpu
    if hasattr(stock, "__wrapped__"):  # patched before
        return

    @functools.wraps(stock)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> Any:
        with explained(path):
            state: dict[str, Any] = stock(path, *args, **kwargs)
        for complete in completions:
            complete(state, path)
        return state

    module.load_checkpoint_to_cpu = load_checkpoint_to_cpu  # type: ignore[attr-defined]
