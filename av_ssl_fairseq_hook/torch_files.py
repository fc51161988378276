"""Reads files of `torch.save` in place of `torch.load`: nothing in them is run, on any version of torch.

Both forms are read: zip archives, and the one of torch before 1.6.  Of an archive every record is compared
with its CRC-32, which torch's own reader does not do; the older form has no checksums.  Sizes are compared
with what the file holds before memory is taken, and tensors with their storages.
"""

from __future__ import annotations

import io
import logging
import math
import operator
import os
import struct
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from av_ssl_fairseq_hook.strict_pickle import ARRAYS, MAPPINGS, Call, Refused, StrictUnpickler, pairs

logger = logging.getLogger(__name__)

MAX_PICKLE = 1 << 28
"""Bytes of the pickle in an archive: names and settings, the tensors are beside it."""
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
"""By the name of the storage's class."""
PLAIN: tuple[type, ...] = (bool, dict, float, int, list, str)
"""Types that omegaconf's nodes and ``defaultdict`` name; a pickle cannot call them."""


class Storage:
    """A storage's class as a value: the type of its elements."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def read(file: BinaryIO, names: Mapping[str, Any]) -> Any:
    """What `torch.save` wrote, on the CPU.

    Args:
        file: at its beginning.
        names: more that pickles may name, see :class:`StrictUnpickler`.

    Raises:
        Refused, zipfile.BadZipFile, or whatever damaged bytes lead to.
    """
    start = file.read(265)
    file.seek(0)
    names = {**ARRAYS, **TENSORS, **names}
    if start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive:
            return Archive(archive, file, names).load()
    if start[257:262] == b"ustar":
        raise Refused("it is a tar archive, as torch wrote them before 2017")
    if not start.startswith(b"\x80"):
        raise ValueError("it begins neither as an archive nor as a pickle")
    return read_legacy(file, names)


# -- tensors -------------------------------------------------------------------------------------------------


def rebuilt(
    flat: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    _: Any = None,
    more: Any = None,
) -> Tensor:
    """A view of a storage's elements: inside of it, and with no more elements."""
    numbers = (offset, *size, *stride)
    if more or type(flat) is not Tensor or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise Refused("it holds a tensor of an impossible place or size")
    last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    elements = math.prod(size)
    if offset > len(flat) or elements > len(flat) or (elements and offset + last >= len(flat)):
        raise Refused("it holds a tensor that is larger than its storage")
    tensor = torch.as_strided(flat, size, stride, offset)
    return tensor.requires_grad_() if requires_grad is True else tensor


def rebuilt_as(
    flat: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, _: Any, dtype: Any, more: Any = None
) -> Tensor:
    """A view of the bytes of a storage, in units of ``dtype``, as tensors of newer types are stored."""
    if type(flat) is not Tensor or not isinstance(dtype, torch.dtype):
        raise Refused("it holds a tensor of an impossible type")
    return rebuilt(flat.view(torch.uint8).view(dtype), offset, size, stride, requires_grad, None, more)


def parameter(data: Any, requires_grad: Any = True, *_: Any) -> torch.nn.Parameter:
    if not isinstance(data, Tensor):
        raise Refused("it holds a parameter that is no tensor")
    return torch.nn.Parameter(data, requires_grad is True)


def device(kind: Any, *index: Any) -> torch.device:
    if type(kind) is not str:
        raise Refused("it names no device")
    return torch.device(kind, *map(operator.index, index))


def named_types() -> dict[str, Any]:
    """The types of tensors' elements, by the names that pickles have for them."""
    return {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


TENSORS: dict[str, Any] = {
    **named_types(),
    **{f"torch.{name}Storage": Storage(dtype) for name, dtype in DTYPES.items()},
    "torch.storage.UntypedStorage": Storage(torch.uint8),
    "torch._utils._rebuild_tensor": Call(rebuilt),
    "torch._utils._rebuild_tensor_v2": Call(rebuilt),
    "torch._utils._rebuild_tensor_v3": Call(rebuilt_as),
    "torch._utils._rebuild_parameter": Call(parameter),
    "torch.Size": Call(lambda size: torch.Size(map(operator.index, size))),
    "torch.device": Call(device),
    "collections.OrderedDict": Call(lambda items=(): OrderedDict(pairs(items))),
    "collections.Counter": Call(
        lambda items=(): Counter(pairs(items.items() if type(items) in MAPPINGS else items))
    ),
    "collections.defaultdict": Call(lambda kind=None: defaultdict(kind if kind in PLAIN else None)),
    "builtins.set": Call(lambda items=(): set(pairs((item, None) for item in items))),
    **{f"builtins.{kind.__name__}": kind for kind in PLAIN},
}
"""Names in pickles of tensors and of what holds them."""


class TensorUnpickler(StrictUnpickler):
    """Gets the elements of a storage from ``storage(dtype, key, count)``."""

    def __init__(
        self,
        file: BinaryIO | io.BytesIO,
        names: Mapping[str, Any],
        storage: Callable[[torch.dtype, str, int], Tensor],
    ) -> None:
        super().__init__(file, names)
        self.storage = storage

    def persistent_load(self, pid: Any) -> Tensor:
        kind, of, key, _, count, *view = pid
        if (
            kind != "storage"
            or not isinstance(of, Storage)
            or type(key) is not str
            or view not in ([], [None])
        ):
            raise Refused("it refers to something that is no storage")
        return self.storage(of.dtype, key, operator.index(count))


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a flat tensor of uint8."""
    return tensor.numpy().data


# -- zip archives --------------------------------------------------------------------------------------------


class Archive:
    """A file of torch's since 1.6: records `NAME/data.pkl`, `NAME/data/KEY`, `NAME/byteorder` and others."""

    def __init__(self, archive: zipfile.ZipFile, file: BinaryIO, names: Mapping[str, Any]) -> None:
        self.archive, self.file, self.names = archive, file, names
        self.records = checked_records(archive, file.seek(0, os.SEEK_END))
        found = [name for name in self.records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise Refused("it holds no data.pkl, so it is no file of torch.save")
        self.root = found[0].removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}

    def load(self) -> Any:
        order = self.records.get(f"{self.root}byteorder")
        if order is not None and bytes(bytes_of(self.read(order))) != b"little":
            raise Refused("it was written on a big-endian machine")
        content = self.records.pop(f"{self.root}data.pkl")
        if content.file_size > MAX_PICKLE:
            raise Refused(f"its data.pkl has {content.file_size} bytes, more than {MAX_PICKLE}")
        value = TensorUnpickler(io.BytesIO(bytes_of(self.read(content))), self.names, self.storage).load()
        for left in self.records.values():
            self.read(left)
        return value

    def storage(self, dtype: torch.dtype, key: str, count: int) -> Tensor:
        if key not in self.storages:
            self.storages[key] = self.read(self.records.pop(f"{self.root}data/{key}"))
        elements = self.storages[key].view(dtype)
        if len(elements) != count:
            raise Refused(f"its storage {key} has {len(elements)} elements of {dtype}, not {count}")
        return elements

    def read(self, record: zipfile.ZipInfo) -> Tensor:
        """The bytes of a record, compared with its checksum; read in one piece, without a copy."""
        self.archive.open(record).close()  # compares the names in its two headers
        self.file.seek(record.header_offset + 26)
        name, extra = struct.unpack("<HH", self.file.read(4))
        self.file.seek(name + extra, os.SEEK_CUR)
        content = torch.empty(record.file_size, dtype=torch.uint8)
        if record.file_size and self.file.readinto(bytes_of(content)) != record.file_size:  # type: ignore[attr-defined]
            raise EOFError(f"record {record.filename} is cut off")
        if zlib.crc32(bytes_of(content)) != record.CRC:
            raise zipfile.BadZipFile(f"record {record.filename} does not have its checksum")
        return content


def checked_records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The records of an archive by name, none compressed, together no larger than the file."""
    infos = archive.infolist()
    records = {info.filename: info for info in infos}
    for info in infos:
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.file_size != info.compress_size
            or info.flag_bits & 1
        ):
            raise Refused(f"its record {info.filename} is compressed or encrypted, which torch's are not")
        if ".." in info.filename.split("/") or info.filename.startswith("/"):
            raise Refused(f"its record {info.filename} names a place outside of the archive")
    if len(records) < len(infos) or sum(info.file_size for info in infos) > size:
        raise Refused("its records share a name or overlap")
    return records


# -- before torch 1.6 ----------------------------------------------------------------------------------------


def read_legacy(file: BinaryIO, names: Mapping[str, Any]) -> Any:
    """Five pickles, the last a list of storages' keys, and the storages: their lengths and elements."""
    magic, protocol, system = (StrictUnpickler(file, {}).load() for _ in range(3))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or system.get("little_endian") is not True:
        raise Refused("it is no file of torch.save")
    size = os.fstat(file.fileno()).st_size
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        if key not in storages:
            length = count * torch.empty(0, dtype=dtype).element_size()
            if not 0 <= length <= size - sum(map(len, storages.values())):
                raise Refused("its storages are larger than the file")
            storages[key], elements[key] = torch.empty(length, dtype=torch.uint8), count
        found = storages[key].view(dtype)
        if elements[key] != count or len(found) != count:
            raise Refused(f"its storage {key} has two sizes")
        return found

    elements: dict[str, int] = {}
    value = TensorUnpickler(file, names, storage).load()
    keys = StrictUnpickler(file, {}).load()
    if not isinstance(keys, list) or Counter(keys) != Counter(storages.keys()):
        raise Refused("its storages are not those that its tensors have")
    for key in keys:
        content = bytes_of(storages[key])
        if struct.unpack("<q", file.read(8)) != (elements[key],):
            raise Refused(f"its storage {key} has another size than its tensors have")
        if len(content) and file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise EOFError("it is cut off")
    if file.read(1):
        raise Refused("it has data behind its last storage")
    logger.warning(
        "%s: has the form of torch before 1.6, without checksums: damage cannot be found", file.name
    )
    return value
