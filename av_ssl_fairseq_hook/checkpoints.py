"""The classes that checkpoints of fairseq hold besides tensors, for `torch.load(weights_only=True)`.

From torch 2.6 on that is the default: a class that is not on torch's list is refused, which keeps a
checkpoint from running code.  Inert classes are put on that list here; the check is never switched off.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import typing
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
    "omegaconf.nodes": ["AnyNode"],
    "sentencepiece": ["SentencePieceProcessor"],
}


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
