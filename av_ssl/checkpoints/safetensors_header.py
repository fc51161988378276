"""Check a safetensors file before it is read: the size of its header, and the place of every tensor."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

MAX_HEADER = 1 << 22
"""Bytes; that of a model of 1,000 tensors has 100,000."""
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element, by the name of its type."""


def check_safetensors(path: Path, checksum: int | None = None) -> None:
    """Raise ValueError unless the tensors fill the file without gap and overlap.

    Args:
        checksum: CRC-32 of the file; None: it has none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER, size - 8):
            raise ValueError(f"its header would have {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=without_repetition)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 0
        for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
            end = end_of(name, entry, end)
        if 8 + length + end != size:
            raise ValueError(f"its tensors end at byte {8 + length + end} of {size}")
        if checksum is not None and file_crc32(path) != checksum:
            raise ValueError("it does not have its checksum")


def end_of(name: str, entry: dict[str, Any], begin: int) -> int:
    """Where a tensor ends that must begin at ``begin``."""
    shape, (first, end) = entry["shape"], entry["data_offsets"]
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, first, end)):
        raise ValueError(f"tensor {name} has an impossible place or size")
    if first != begin or end - first != SIZES[entry["dtype"]] * math.prod(shape):
        raise ValueError(f"tensor {name} overlaps another, leaves a gap, or is not as long as its shape")
    return end


def without_repetition(items: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in items}) < len(items):
        raise ValueError("its header names a tensor twice")
    return dict(items)


def file_crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
