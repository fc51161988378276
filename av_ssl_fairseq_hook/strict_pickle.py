"""Reads pickles of plain values and arrays: nothing is imported, and nothing called that is not listed here.

`pickle` imports and calls whatever a file names, and the reader of `torch.load(weights_only=True)` had holes
of its own (CVE-2025-32434 before torch 2.6, CVE-2026-24747 before 2.10).  This one has a list of opcodes, a
table of names, its own code for everything that fills an object, and bounds, so that a small file cannot take
all memory.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

import numpy as np

MAX_OPCODES = 20_000_000
"""In a pickle; each can take some 70 bytes of memory.  A dictionary of a million words takes five million."""
MAX_VALUES = 20_000_000
"""In all containers; those in a container that is used twice count twice, as they would in a copy."""
MAX_DEPTH = 100
"""Of containers in containers."""
SCALARS = (str, int, float, bool, bytes, type(None))
"""What keys can be: a tuple that is nested deeply enough overflows the stack when it is hashed."""
MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
NUMBERS = frozenset("biufc")

OPCODES = """
    MARK STOP POP POP_MARK DUP PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4
    FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    EMPTY_SET ADDITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
    MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
"""
"""Not among them: INST, OBJ and NEWOBJ_EX, which call classes; extension codes; buffers from outside."""


class Refused(pickle.UnpicklingError):
    """A pickle asks for what is not on the lists."""


class Call:
    """A name that a pickle may call; what it calls is ours."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class Inert:
    """A class of which a pickle may make an empty object, and fill it with attributes."""

    def __init__(self, of: type, fill: Callable[[Any, Any], None] | None = None) -> None:
        self.of, self.fill = of, fill or fill_attributes


def fill_attributes(instance: Any, state: Any) -> None:
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise Refused(f"it fills a {type(instance).__name__} with a {type(state).__name__}")
    vars(instance).update(state)


PYTHONS_UNPICKLER: Any = pickle._Unpickler
"""The one in Python, whose parts can be replaced; torch's is made of the same."""


class StrictUnpickler(PYTHONS_UNPICKLER):
    """Reads one pickle from a file.

    Args:
        file: at the beginning of the pickle.
        names: what a pickle may name, as "module.name": a :class:`Call`, an :class:`Inert`, or a plain value.
    """

    dispatch: dict[int, Any] = {}  # noqa: RUF012 - filled below, as pickle's own is

    def __init__(self, file: BinaryIO | io.BytesIO, names: Mapping[str, Any]) -> None:
        super().__init__(file, encoding="utf-8")
        self.names = names
        fillers = {value.of: value.fill for value in names.values() if isinstance(value, Inert)}
        self.fillers = {OrderedDict: fill_attributes, np.ndarray: fill_array, Dtype: fill_dtype, **fillers}

    def load(self) -> Any:
        """The pickled value; raises UnpicklingError, or whatever damaged bytes lead to."""
        self._unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.read, self.readline = self._unframer.read, self._unframer.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        dispatch, read = self.dispatch, self.read
        try:
            for _ in range(MAX_OPCODES):
                code = read(1)
                if not code:
                    raise EOFError("it ends too early")
                if code[0] not in dispatch:
                    raise Refused(f"it holds the opcode {code!r}")
                dispatch[code[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            check_extent(stop.value, self.fillers)
            return stop.value
        raise Refused(f"it has more than {MAX_OPCODES} opcodes")

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # builtins and others have the names of Python 2 in it
            module, name = NAME_MAPPING.get((module, name), (module, name))
            module = IMPORT_MAPPING.get(module, module)
        if f"{module}.{name}" not in self.names:
            raise Refused(f"it asks for {module}.{name}")
        return self.names[f"{module}.{name}"]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if not isinstance(called, Call) or type(arguments) is not tuple:
            raise Refused(f"it calls a {type(called).__name__}")
        try:
            self.stack[-1] = called.function(*arguments)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise Refused(f"it calls a function with arguments of its own choice ({error})") from error

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, Inert) or arguments != ():
            raise Refused(f"it calls a class with arguments of its own choice, or a {type(made).__name__}")
        self.stack[-1] = object.__new__(made.of)

    def load_build(self) -> None:
        state = self.stack.pop()
        fill = self.fillers.get(type(self.stack[-1]))
        if fill is None:
            raise Refused(f"it sets the state of a {type(self.stack[-1]).__name__}")
        fill(self.stack[-1], state)

    def load_bytearray8(self) -> None:  # stock: allocates and clears as many bytes as the file states
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set or not all(type(item) in SCALARS for item in items):
            raise Refused("it makes a set of more than numbers and strings")
        self.stack[-1].update(items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def load_setitem(self) -> None:
        self._set([self.stack.pop(-2), self.stack.pop()])

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused(f"it appends to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in MAPPINGS:
            raise Refused(f"it sets items of a {type(target).__name__}")
        if type(target) is defaultdict and any(map(frees_without_end, items[1::2])):
            raise Refused("it has a defaultdict in another one")
        target.update(pairs(zip(items[::2], items[1::2], strict=True)))


def own_dispatch() -> dict[int, Any]:
    """The listed opcodes, each with our method where there is one."""
    stock = PYTHONS_UNPICKLER.dispatch
    codes = {getattr(pickle, name)[0] for name in OPCODES.split()}
    return {code: getattr(StrictUnpickler, stock[code].__name__) for code in codes}


StrictUnpickler.dispatch = own_dispatch()


def pairs(items: Any) -> dict[Any, Any]:
    """A dict of pairs whose keys are scalars."""
    made = {}
    for key, value in items:
        if type(key) not in SCALARS:
            raise Refused(f"it has a {type(key).__name__} as a key")
        made[key] = value
    return made


def frees_without_end(value: Any) -> bool:
    """Whether a value, as its own content many times over, overflows the stack when it is freed.

    Python's other containers watch their depth. An array counts before it is filled, too.
    """
    if isinstance(value, np.ndarray):
        return value.dtype == object or is_unfilled(value)
    return type(value) is defaultdict


def check_extent(value: Any, filled: Collection[type]) -> None:
    """Raise Refused for values that are nested too deeply, contain themselves, or are too many.

    Code that walks through a value must end: a list of two lists of two lists ... that are all the same one
    takes few bytes in a pickle and all memory in a copy.
    """
    containers = {list, tuple, set, *MAPPINGS, *filled}
    known: dict[int, tuple[int, int] | None] = {}

    def extent(container: Any, depth: int) -> tuple[int, int]:
        """Number of values in a container, and levels of containers."""
        if id(container) in known:
            found = known[id(container)]
            if found is None:
                raise Refused("it holds a value that contains itself")
            return found
        if depth > MAX_DEPTH:
            raise Refused(f"its values are nested more than {MAX_DEPTH} levels deep")
        known[id(container)] = None
        inside = contents(container)
        parts = [extent(part, depth + 1) for part in inside if type(part) in containers]
        count = len(inside) + sum(number for number, _ in parts)
        height = 1 + max((levels for _, levels in parts), default=0)
        if count > MAX_VALUES or height > MAX_DEPTH:
            raise Refused(f"it holds more than {MAX_VALUES} values, or more than {MAX_DEPTH} levels of them")
        known[id(container)] = count, height
        return count, height

    if type(value) in containers:
        extent(value, 1)


def contents(container: Any) -> list[Any]:
    """What is in a container, attributes included."""
    if isinstance(container, np.ndarray):
        return container.ravel().tolist() if container.dtype.kind == "O" else []
    if isinstance(container, list | tuple | set):
        return list(container)
    inside = list(container.values()) if type(container) in MAPPINGS else []
    # omegaconf's nodes refer to the node that they are in.
    return inside + [value for name, value in getattr(container, "__dict__", {}).items() if name != "_parent"]


# -- numpy ---------------------------------------------------------------------------------------------------


class Dtype:
    """Stands for numpy's dtype, whose own state would set the layout of memory."""

    def __init__(self, code: Any, *_: Any) -> None:
        if type(code) is not str:
            raise Refused("it holds a type of numpy's without a name")
        self.code, self.order = code, "="

    def of_numbers(self) -> np.dtype[Any]:
        found = np.dtype(self.order + self.code) if len(self.code) <= 3 else None
        if found is None or found.kind not in NUMBERS:
            raise Refused(f"it holds an array of {self.code}")
        return found


def fill_dtype(dtype: Any, state: Any) -> None:
    order = state[1] if type(state) is tuple and len(state) > 1 else None
    if order not in ("<", ">", "|", "="):
        raise Refused("it changes a type of numpy's")
    dtype.order = order.replace("|", "")


def array_of(content: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """An array of numbers; the content must be as long as the shape asks for."""
    return np.frombuffer(content, dtype.of_numbers()).reshape(shape, order="F" if order == "F" else "C")


def unfilled(*_: Any) -> np.ndarray:
    """An array whose state follows."""
    return np.empty(0, np.uint8)


def is_unfilled(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and not array.size


def fill_array(array: np.ndarray, state: Any) -> None:
    """Give an array the shape and content of a state; an array of objects holds values of the pickle."""
    if not is_unfilled(array):
        raise Refused("it fills an array twice")
    _, shape, dtype, fortran, content = state
    fill: Any = array.__setstate__
    if not isinstance(content, list):
        filled = array_of(content, dtype, shape, "F" if fortran else "C")
        fill((1, filled.shape, filled.dtype, False, filled.tobytes()))
    elif any(map(frees_without_end, content)):
        raise Refused("it has an array of objects in another one")
    elif dtype.code[:1] == "O" and math.prod(shape) == len(content):
        fill((1, shape, np.dtype(object), bool(fortran), content))
    else:
        raise Refused("it holds an array whose length is not that of its content")


def encode(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise Refused("it encodes text otherwise than as latin1")
    return text.encode("latin1")


ARRAYS: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": Call(Dtype),
    "_codecs.encode": Call(encode),
    "builtins.bytes": Call(lambda: b""),
    "builtins.bytearray": Call(bytes),
}
"""Names in pickles of arrays of numbers."""
for core in ("core", "_core"):  # numpy 2 renamed it, and files are exchanged between both
    ARRAYS |= {
        f"numpy.{core}.multiarray._reconstruct": Call(unfilled),
        f"numpy.{core}.multiarray.scalar": Call(lambda dtype, content: array_of(content, dtype, ())[()]),
        f"numpy.{core}.numeric._frombuffer": Call(array_of),
    }
