"""Dictionaries and tokenizer out of a checkpoint's task state.

Three writers left three forms: this package stores strings and a tensor; AV-HuBERT's published files hold
pickled ``dictionaries``, ``target_dictionary`` and ``s2s_tokenizer``; files without a task state have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary

from av_ssl.errors import DataError


def text_state(task_state: Mapping[str, Any], origin: str) -> dict[str, Any] | None:
    """``symbols`` and ``tokenizer`` as ``TextEncoder.state_dict`` has them; None if nothing is stored.

    Args:
        task_state: a checkpoint's ``task_state``.
        origin: the checkpoint's path, for errors.

    Raises:
        DataError: the stored objects are not what their names say.
    """
    if "symbols" in task_state:
        return {"symbols": list(task_state["symbols"]), "tokenizer": task_state.get("tokenizer")}
    dictionary = task_state.get("target_dictionary")
    if dictionary is None:
        return None
    state: dict[str, Any] = {"symbols": symbols_of(dictionary, origin), "tokenizer": None}
    tokenizer = task_state.get("s2s_tokenizer")
    if tokenizer is not None:
        model = getattr(getattr(tokenizer, "sp", None), "serialized_model_proto", None)
        if model is None:
            raise DataError(f"{origin}: its s2s_tokenizer holds no sentencepiece model; get the file again")
        state["tokenizer"] = torch.from_numpy(np.frombuffer(model(), np.uint8).copy())
    return state


def stored_label_sets(task_state: Mapping[str, Any], origin: str) -> list[list[str]]:
    """Symbols of each dictionary of cluster ids; none if none is stored.

    Args:
        task_state: a checkpoint's ``task_state``.
        origin: the checkpoint's path, for errors.

    Raises:
        DataError: a stored object is no dictionary.
    """
    if "label_symbols" in task_state:
        return [list(symbols) for symbols in task_state["label_symbols"]]
    return [symbols_of(one, origin) for one in task_state.get("dictionaries") or []]


def symbols_of(dictionary: Any, origin: str) -> list[str]:
    """The symbols of a stored dictionary; DataError if the object is none."""
    symbols = getattr(dictionary, "symbols", None)
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise DataError(
            f"{origin}: its task state holds a {type(dictionary).__name__} where a dictionary belongs; "
            "get the file again"
        )
    return list(symbols)


def dictionary_of(symbols: list[str], origin: str) -> Dictionary:
    """A fairseq dictionary of these symbols, ids in their order; the special four come first."""
    dictionary = Dictionary()
    if symbols[: dictionary.nspecial] != dictionary.symbols:
        raise DataError(
            f"{origin}: its dictionary begins with {symbols[: dictionary.nspecial]}, not "
            f"{dictionary.symbols}; it is not from fairseq"
        )
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    if len(dictionary) != len(symbols):
        raise DataError(f"{origin}: its dictionary names a symbol twice; get the file again")
    return dictionary
