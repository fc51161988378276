"""Reading of checkpoints for fairseq's commands and for av_ssl: their classes, and what errors say.

`read_file` takes the place of `torch.load`, on any version of torch.  For what fairseq loads by other ways,
the same inert classes are put on the list of `torch.load(weights_only=True)`, the default from torch 2.6 on.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import os
import shutil
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE

from av_ssl_fairseq_hook import torch_files
from av_ssl_fairseq_hook.strict_pickle import SCALARS, Inert, Refused, fill_attributes

multiarray = importlib.import_module(
    "numpy._core.multiarray" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core.multiarray"
)

PROCESSOR = "SentencePieceProcessor"
INERT = {
    "fairseq.data.dictionary": ["Dictionary"],
    "fairseq.distributed.utils": ["_TensorPlaceholder"],  # what a worker receives a checkpoint as
    "omegaconf": ["DictConfig", "ListConfig"],
    "omegaconf.base": ["ContainerMetadata", "Metadata"],
    "omegaconf.nodes": ["AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"],
    "sentencepiece": [PROCESSOR],
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
    allowed: list[Any] = [argparse.Namespace, collections.defaultdict, *torch_files.PLAIN, typing.Any]
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

    Before torch 2.6 there is no such default, and the list takes no pairs: nothing is done.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6):
        torch.serialization.add_safe_globals(_classes())


@functools.cache
def names() -> dict[str, Any]:
    """What pickles in checkpoints may name besides tensors and arrays."""
    found: dict[str, Any] = {"typing.Any": typing.Any, "argparse.Namespace": Inert(argparse.Namespace)}
    for module_name, classes in INERT.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # sentencepiece is optional where nothing is tokenized
        for name in classes:
            of = getattr(module, name)
            # Under the name of the module that defines it, which is what pickles hold.
            found[f"{of.__module__}.{name}"] = Inert(of, fill_tokenizer if name == PROCESSOR else None)
    found[f"{SentencepieceBPE.__module__}.{SentencepieceBPE.__qualname__}"] = Inert(Tokenizer)
    found[f"{Tokenizer.__module__}.{Tokenizer.__qualname__}"] = Inert(Tokenizer)
    return found


def fill_tokenizer(processor: Any, state: Any) -> None:
    """Give a tokenizer its model, and the settings that newer versions of sentencepiece store beside it."""
    settings = state if type(state) is dict else {"model_proto": state}
    model = settings.get("model_proto")
    if type(model) is not bytes:
        raise Refused(f"it fills a tokenizer with a {type(model).__name__}")
    processor.__init__()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise ValueError(f"its tokenizer is no sentencepiece model: {error}") from error
    fill_attributes(
        processor, {key: x for key, x in settings.items() if key in vars(processor) and type(x) in SCALARS}
    )


def read_file(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote to a file, on the CPU, see :func:`torch_files.read`.

    Raises:
        av_ssl.errors.DataError: the file is damaged, of another kind, or asks for what is not on the lists.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        return read_open(file)


def read_open(file: BinaryIO) -> Any:
    """As :func:`read_file`, for a file that is open."""
    try:
        return torch_files.read(file, names())
    except Exception as error:  # a foreign file can break its reader in any way
        # Not imported at the top: fairseq must import av_ssl by itself, see this package's docstring.
        from av_ssl.errors import DataError

        raise DataError(f"{file.name}: {_reason(file, error)}") from error


SAFETENSORS = ".safetensors"
TO_CONVERT = "is read by av-ssl, not by fairseq's commands; convert it: av-ssl model convert MODEL FILE.pt"


def _reason(file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    begin = file.read(512).lstrip().lower()
    if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a checkpoint: the download failed or asked for a login; repeat it"
    if begin.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the checkpoint: fetch the file with git lfs pull"
    if file.name.endswith(SAFETENSORS):
        return TO_CONVERT
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Refused) and what.startswith("it asks for"):
        return (
            f"refused, for {what}, which is not among the harmless classes that checkpoints need: reading it "
            "could run code of whoever made it. Get the checkpoint from its origin again; if you trust it, "
            "load and save it without that object"
        )
    if isinstance(error, Refused):
        return f"refused, for {what}; get it from its origin again, or do not use it"
    if begin.startswith(b"pk\x03\x04"):
        return f"is cut off or damaged ({what}); copy or download it again"
    return f"is no checkpoint, or is cut off ({what}); copy or download it again"


def copy_atomically(source: str, target: str, overwrite: bool = False) -> bool:
    """In place of fairseq's copy of a checkpoint, which leaves a torn file if it is killed."""
    partial = f"{target}.tmp"
    shutil.copyfile(source, partial)
    os.replace(partial, target)
    return True


def save_once(state: Any, file: BinaryIO) -> None:
    """In place of fairseq's three attempts, of which the second begins behind what the first has written.

    Raises av_ssl.errors.DataError if the disk is full; the checkpoint that was there before is still whole.
    """
    try:
        torch.save(state, file)
    except (OSError, RuntimeError) as error:
        from av_ssl.errors import DataError  # as in read_open

        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file.name}: cannot be written ({reason}); free space, then run the same command again: it "
            "continues from the last checkpoint"
        ) from error


def explain_unreadable(module: ModuleType) -> None:
    """Have `fairseq.checkpoint_utils` read checkpoints by :func:`read_open`, and complete them."""
    stock: Callable[..., Any] = module.load_checkpoint_to_cpu
    if hasattr(stock, "__wrapped__"):  # patched before
        return

    module.PathManager.copy = staticmethod(copy_atomically)
    module._torch_persistent_save = save_once  # type: ignore[attr-defined]

    def load(file: BinaryIO | str, *_: Any, **__: Any) -> dict[str, Any]:
        state = read_file(file) if isinstance(file, str) else read_open(file)
        if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
            from av_ssl.errors import DataError  # as in read_open

            path = file if isinstance(file, str) else file.name
            kind = ", ".join(map(str, list(state)[:8])) if isinstance(state, dict) else type(state).__name__
            raise DataError(f"{path}: is no checkpoint of fairseq's (it holds {kind})")
        return state

    strict = ModuleType("torch")
    strict.load = load  # type: ignore[attr-defined]
    strict.__getattr__ = functools.partial(getattr, module.torch)  # type: ignore[method-assign]
    module.torch = strict  # type: ignore[attr-defined]

    @functools.wraps(stock)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> Any:
        state: dict[str, Any] = stock(path, *args, **kwargs)
        for complete in completions:
            complete(state, path)
        return state

    module.load_checkpoint_to_cpu = load_checkpoint_to_cpu  # type: ignore[attr-defined]
