"""Builds pickles opcode by opcode, archives of torch's record by record, and safetensors files."""

from __future__ import annotations

import json
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little", signed=True)


def name(module: str, member: str) -> bytes:
    return f"c{module}\n{member}\n".encode()


def many(*parts: bytes) -> bytes:
    """A tuple."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def call(module: str, member: str, *arguments: bytes) -> bytes:
    return name(module, member) + many(*arguments) + pickle.REDUCE


def entry(key: str, value: bytes) -> bytes:
    return text(key) + value + pickle.SETITEM


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4) -> bytes:
    pid = many(text("storage"), name("torch", kind), text(key), text("cpu"), number(count))
    return pid + pickle.BINPERSID


def tensor(
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    content: bytes | None = None,
) -> bytes:
    numbers = [many(*map(number, values)) for values in (size, stride)]
    hooks = call("collections", "OrderedDict")
    parts = (content or storage(), number(offset), *numbers, pickle.NEWFALSE, hooks)
    return call("torch._utils", "_rebuild_tensor_v2", *parts)


def checkpoint(value: bytes = tensor(), extra: bytes = b"") -> bytes:
    """A pickle of ``{"cfg": {"model": {}, "task": {}}, "model": {"weight": value}}``, and more entries."""
    sections = entry("model", pickle.EMPTY_DICT) + entry("task", pickle.EMPTY_DICT)
    entries = entry("cfg", pickle.EMPTY_DICT + sections) + entry(
        "model", pickle.EMPTY_DICT + entry("weight", value)
    )
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + entries + extra + pickle.STOP


RECORDS = {"a/byteorder": b"little", "a/data/0": struct.pack("<4f", 1, 2, 3, 4), "a/version": b"3\n"}


def write_archive(
    path: Path, content: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for record, data in {"a/data.pkl": content, **(RECORDS if records is None else records)}.items():
            archive.writestr(record, data)


def write_legacy(path: Path, content: bytes, tail: bytes | None = None) -> None:
    """The form of torch before 1.6."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}]
    if tail is None:
        tail = pickle.dumps(["0"], 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + content + tail)


def write_safetensors_file(path: Path, header: Any, data: bytes, length: int | None = None) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A bit flipped, some bytes overwritten, taken out or repeated, or the end cut off."""
    place, kind = rng.randrange(len(content)), rng.randrange(5)
    length = min(rng.choice([1, 4, 100]), len(content) - place)
    return (
        content[:place]
        + {
            0: bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :],
            1: rng.randbytes(length) + content[place + length :],
            2: content[place + length :],
            3: content[place : place + length] * 2 + content[place + length :],
            4: b"",
        }[kind]
    )
