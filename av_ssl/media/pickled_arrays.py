"""Pickles that hold lists of numpy arrays, read without running code from them.

`pickle.load` calls whatever a file names. Here the few names that arrays are made of stand for plain
functions of this module, and any other name is an error.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

PICKLE_ERRORS = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, UnicodeDecodeError)
KINDS = frozenset("biuf")  # numbers


def read_pickled(path: Path) -> Any:
    """What the pickle holds: None, numbers, text, lists, tuples, dicts and numpy arrays of numbers.

    Raises pickle.UnpicklingError (or another of PICKLE_ERRORS, ValueError) for anything else.
    """
    with open(path, "rb") as file:
        return _plain(_ArrayUnpickler(file).load())


class _DType:
    """Stands for numpy.dtype while a pickle is read."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def build(self) -> np.dtype[Any]:
        order = "" if self.order == "|" else self.order
        dtype = np.dtype(order + self.code)
        if dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"it holds an array of {self.code}")
        return dtype


class _Array:
    """Stands for numpy.ndarray."""

    value: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):  # an array of objects
            self.value = content
        else:
            self.value = _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: Any, dtype: _DType, shape: Any, order: str = "C") -> np.ndarray:
    return np.frombuffer(bytes(content), dtype.build()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _DType, content: bytes) -> Any:
    return _from_bytes(content, dtype, ())[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


_STAND_INS = {
    "ndarray": _Array,
    "_reconstruct": _Array,
    "dtype": _DType,
    "scalar": _scalar,
    "_frombuffer": _from_bytes,
}
_NUMPY = frozenset(
    f"numpy{module}"
    for module in ("", ".core.multiarray", "._core.multiarray", ".core.numeric", "._core.numeric")
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY and name in _STAND_INS:
            return _STAND_INS[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 2 and early protocols write bytes
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array of numbers")


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
