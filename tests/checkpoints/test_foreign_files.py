"""Hostile and damaged files, built byte by byte: none runs code, ends the process or takes all memory."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl.checkpoints.files import read_stored, write_stored
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError
from av_ssl.media.landmark_files import read_landmarks
from av_ssl_fairseq_hook.checkpoints import read_file
from tests.checkpoints.foreign import (
    RECORDS,
    call,
    checkpoint,
    damaged,
    entry,
    many,
    name,
    number,
    storage,
    tensor,
    text,
    write_archive,
    write_legacy,
    write_safetensors_file,
)

MEMORY = 3 << 30
"""Bytes of address space that a file may take on top of what the process has."""
pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bounded():
    """Less memory than a successful attack needs: it would raise MemoryError, which is no DataError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def nested(opcode_before: bytes, opcode_after: bytes, depth: int) -> bytes:
    return opcode_before * depth + opcode_after * depth


def doubled(levels: int) -> bytes:
    """A list of two lists of two lists ..., each pair the same one."""
    return pickle.EMPTY_LIST + b"".join(
        pickle.BINPUT + bytes([level]) + pickle.POP + pickle.EMPTY_LIST + pickle.MARK
        + (pickle.BINGET + bytes([level])) * 2 + pickle.APPENDS
        for level in range(levels)
    )  # fmt: skip


MARK = "harm"
"""A file that must not come into being."""
FUNCTIONS = (
    "os system", "posix system", "subprocess check_output", "builtins eval", "__builtin__ eval",
    "builtins exec", "builtins open", "builtins __import__", "pty spawn", "runpy _run_code",
    "torch.hub load_state_dict_from_url", "torch.serialization load", "torch._utils _import_dotted_name",
    "torch.jit unsupported_tensor_ops.execWrapper", "numpy load", "numpy.ctypeslib load_library",
    "fairseq.data.encoders.sentencepiece_bpe SentencepieceBPE", "fairseq.data.dictionary Dictionary",
    "builtins int", "builtins getattr",
)  # fmt: skip
CALLS = {
    **{names: call(*names.split(), text(f"touch {MARK}")) for names in FUNCTIONS},
    "eval that writes": call("builtins", "eval", text(f"open('{MARK}', 'w')")),
    "getattr of a module": call("builtins", "getattr", name("os", "system"), text("__call__")),
    "dotted name": pickle.PROTO + b"\x04" + text("torch") + text("os.system") + pickle.STACK_GLOBAL,
    "stack global": pickle.PROTO + b"\x04" + text("os") + text("system") + pickle.STACK_GLOBAL
    + many(text(f"touch {MARK}")) + pickle.REDUCE,
    "inst": pickle.MARK + text(f"touch {MARK}") + b"ios\nsystem\n",
    "obj": pickle.MARK + name("os", "system") + text(f"touch {MARK}") + pickle.OBJ,
    "newobj": name("argparse", "Namespace") + many(text("x")) + pickle.NEWOBJ,
    "newobj of a dict": name("builtins", "dict") + many() + pickle.NEWOBJ,
    "newobj_ex": name("argparse", "Namespace") + many() + pickle.EMPTY_DICT + pickle.NEWOBJ_EX,
    "extension": pickle.EXT1 + b"\x01",
    "buffer from outside": pickle.NEXT_BUFFER,
    "persistent id as text": b"Pstorage\n",
    "omegaconf with arguments": call("omegaconf.dictconfig", "DictConfig", pickle.EMPTY_DICT),
    "a class as a function": call("collections", "defaultdict", name("os", "system")),
    "result of a call": call("collections", "OrderedDict") + many() + pickle.REDUCE,
}  # fmt: skip
STATES = {
    "of a tensor": tensor() + many(storage(), number(0), many(number(9)), many(number(1))) + pickle.BUILD,
    "of a dict": pickle.EMPTY_DICT + entry("a", number(1)) + pickle.EMPTY_DICT + pickle.BUILD,
    "of a list": pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.BUILD,
    "of a class": name("argparse", "Namespace") + pickle.EMPTY_DICT + pickle.BUILD,
    "no dict": name("argparse", "Namespace") + many() + pickle.NEWOBJ + number(1) + pickle.BUILD,
    "slots": name("argparse", "Namespace") + many() + pickle.NEWOBJ
    + many(pickle.NONE, pickle.EMPTY_DICT) + pickle.BUILD,
    "keys are numbers": name("argparse", "Namespace") + many() + pickle.NEWOBJ
    + pickle.EMPTY_DICT + number(1) + number(2) + pickle.SETITEM + pickle.BUILD,
    "items of a tensor": tensor() + number(0) + number(7) + pickle.SETITEM,
    "items of a list": pickle.EMPTY_LIST + number(0) + number(7) + pickle.SETITEM,
    "items of a tuple": many(number(1)) + number(0) + number(7) + pickle.SETITEM,
    "items of a storage": storage() + number(0) + number(7) + pickle.SETITEM,
    "items of an object": name("argparse", "Namespace") + many() + pickle.NEWOBJ + entry("a", number(1)),
    "appended to a tensor": tensor() + number(7) + pickle.APPEND,
    "appended to a dict": pickle.EMPTY_DICT + pickle.MARK + number(7) + pickle.APPENDS,
    "added to a list": pickle.EMPTY_LIST + pickle.MARK + number(7) + pickle.ADDITEMS,
    "a tuple in a set": pickle.EMPTY_SET + pickle.MARK + many(number(7)) + pickle.ADDITEMS,
    "a tuple as a key": pickle.EMPTY_DICT + many(number(1)) + number(7) + pickle.SETITEM,
    "a list as a key": pickle.EMPTY_DICT + pickle.EMPTY_LIST + number(7) + pickle.SETITEM,
    "a key without value": pickle.EMPTY_DICT + pickle.MARK + text("a") + pickle.SETITEMS,
    "deep key": pickle.EMPTY_DICT + nested(pickle.EMPTY_TUPLE, b"", 1) + pickle.TUPLE1 * 50_000
    + number(1) + pickle.SETITEM,
    "a tokenizer of text": name("sentencepiece", "SentencePieceProcessor") + many() + pickle.NEWOBJ
    + text("model") + pickle.BUILD,
    "a damaged tokenizer": name("sentencepiece", "SentencePieceProcessor") + many() + pickle.NEWOBJ
    + call("_codecs", "encode", text("no model"), text("latin1")) + pickle.BUILD,
    "a codec": call("_codecs", "encode", text("x"), text("punycode")),
}  # fmt: skip
SIZES = {
    "larger": tensor(size=(5,)),
    "behind the end": tensor(offset=1),
    "offset far": tensor(offset=1 << 61, size=(0,)),
    "stride": tensor(size=(2,), stride=(4,)),
    "negative stride": tensor(stride=(-1,)),
    "negative offset": tensor(offset=-4),
    "negative size": tensor(size=(-1,)),
    "repeated": tensor(size=(1 << 40,), stride=(0,)),
    "product overflows": tensor(size=(1 << 32, 1 << 32), stride=(0, 0)),
    "huge": tensor(size=(1 << 61,)),
    "other dimensions": tensor(size=(2, 2), stride=(1,)),
    "size is a text": call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), text("4"), text("1")),
    "no storage": call("torch._utils", "_rebuild_tensor_v2", number(1), number(0), *[many(number(1))] * 2),
    "too few arguments": call("torch._utils", "_rebuild_tensor_v2", storage()),
    "storage too long": tensor(content=storage(count=5)),
    "storage too short": tensor(content=storage(count=3), size=(3,)),
    "storage negative": tensor(content=storage(count=-1), size=(0,)),
    "storage of doubles": tensor(content=storage("DoubleStorage"), size=(1,)),
    "storage missing": tensor(content=storage(key="7")),
    "storage outside": tensor(content=storage(key="../../etc/passwd")),
    "storage twice": many(tensor(), tensor(content=storage("ByteStorage", count=4))),
    "storage unknown": tensor(content=storage("QUInt8Storage")),
    "a parameter that is none": call("torch._utils", "_rebuild_parameter", number(1)),
    "other elements": call(
        "torch._utils", "_rebuild_tensor_v3", storage(), number(0), many(number(4)), many(number(1)),
        pickle.NEWFALSE, pickle.NONE, name("torch", "float64"),
    ),
    "meta": call("torch._utils", "_rebuild_meta_tensor_no_storage", number(1)),
    "sparse": call("torch._utils", "_rebuild_sparse_tensor", number(1), number(1)),
    "qtensor": call("torch._utils", "_rebuild_qtensor", storage()),
}  # fmt: skip
EMPTY_ARRAY = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), many(), pickle.NONE)


def objects(*values: bytes) -> bytes:
    """An array of objects, which is freed level by level without a bound."""
    content = pickle.EMPTY_LIST + b"".join(value + pickle.APPEND for value in values)
    state = (
        number(1),
        many(number(len(values))),
        call("numpy", "dtype", text("O8")),
        pickle.NEWFALSE,
        content,
    )
    return EMPTY_ARRAY + many(*state) + pickle.BUILD


def default(value: bytes) -> bytes:
    return call("collections", "defaultdict") + number(1) + value + pickle.SETITEM


BOMBS = {
    "arrays in arrays": objects(objects(pickle.NONE)),
    "arrays in arrays that are filled later": objects(EMPTY_ARRAY),
    "an array that is filled twice": objects(pickle.NONE) + many(pickle.NONE) + pickle.BUILD,
    "defaultdicts in defaultdicts": default(default(pickle.NONE)),
    "defaultdicts in arrays": objects(default(pickle.NONE)),
    "arrays in defaultdicts": default(objects(pickle.NONE)),
    "the hash of nested tuples": call(
        "collections", "Counter",
        pickle.EMPTY_LIST + number(1) + pickle.TUPLE1 * 500_000 + number(1) + pickle.TUPLE2 + pickle.APPEND,
    ),
    "a billion laughs in a message": doubled(60) + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "a billion laughs in another": doubled(60) + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "a billion laughs as a type": call("numpy", "dtype", doubled(60)),
    "a billion laughs as an encoding": call("_codecs", "encode", text("a"), doubled(60)),
    "a billion laughs as a device": call("torch", "device", doubled(60)),
    "nested lists": nested(pickle.EMPTY_LIST, pickle.APPEND, 20_000)[:-1],
    "nested tuples": pickle.EMPTY_TUPLE + pickle.TUPLE1 * 20_000,
    "chained lists": b"".join(
        pickle.EMPTY_LIST + (pickle.LONG_BINGET + struct.pack("<I", k - 1) + pickle.APPEND if k else b"")
        + pickle.LONG_BINPUT + struct.pack("<I", k) for k in range(200)
    ),
    "a billion laughs": doubled(60),
    "a list in itself": pickle.EMPTY_LIST + pickle.BINPUT + b"\0" + pickle.BINGET + b"\0" + pickle.APPEND,
    "a dict in itself": pickle.EMPTY_DICT + pickle.BINPUT + b"\0" + entry("a", pickle.BINGET + b"\0"),
    "far memo": pickle.NONE + pickle.LONG_BINPUT + struct.pack("<I", (1 << 32) - 1) + pickle.BINGET + b"\0",
    "long bytes": pickle.BINBYTES8 + struct.pack("<Q", 1 << 40),
    "long bytearray": pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 40),
    "long text": pickle.BINUNICODE8 + struct.pack("<Q", 1 << 62),
    "long frame": pickle.FRAME + struct.pack("<Q", 1 << 62),
    "long number": pickle.LONG4 + struct.pack("<i", (1 << 31) - 1),
    "negative number": pickle.LONG4 + struct.pack("<i", -1),
    "digits": b"I" + b"9" * 100_000 + b"\n",
    "array": EMPTY_ARRAY
    + many(number(1), many(number(1 << 40)), call("numpy", "dtype", text("f8")), pickle.NEWFALSE,
           call("builtins", "bytes")) + pickle.BUILD,
    "array of objects": EMPTY_ARRAY
    + many(number(1), many(number(1 << 40)), call("numpy", "dtype", text("O8")), pickle.NEWFALSE,
           pickle.EMPTY_LIST) + pickle.BUILD,
    "type of structures": call("numpy.core.multiarray", "scalar", call("numpy", "dtype", text("f8,O"))),
    "many fields": call("numpy.core.multiarray", "scalar", call("numpy", "dtype", text("f8," * 99))),
    "state of a type": call("numpy", "dtype", text("f8")) + many(number(3), text("?")) + pickle.BUILD,
    "no mark": pickle.POP_MARK,
    "empty stack": pickle.POP * 9,
    "unknown opcode": b"\xff",
}  # fmt: skip
VALUES = {
    f"{kind}: {label}": value
    for kind, values in (("call", CALLS), ("state", STATES), ("size", SIZES), ("bomb", BOMBS))
    for label, value in values.items()
}


def reads(path: Path) -> None:
    for read in (read_stored, read_file):
        with pytest.raises(DataError, match=path.name.replace(".", r"\.")):
            read(path)


@pytest.mark.parametrize("write", [write_archive, write_legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_pickles_that_are_refused(folder, value, write):
    write(folder / "foreign.pt", checkpoint(extra=entry("more", value)))
    reads(folder / "foreign.pt")
    assert os.listdir() == ["foreign.pt"]


def test_what_the_others_are_made_from_is_read(tmp_path):
    for write in (write_archive, write_legacy):
        write(tmp_path / "sound.pt", checkpoint())
        assert read_stored(tmp_path / "sound.pt").tensors["weight"].tolist() == [1, 2, 3, 4]


# -- archives ------------------------------------------------------------------------------------------------


def changed_directory(path: Path, change: Callable[[zipfile.ZipInfo], None]) -> None:
    """Write the archive with one entry of its directory changed; the record itself stays."""
    with zipfile.ZipFile(path, "w") as archive:
        for record, data in {"a/data.pkl": checkpoint(), **RECORDS}.items():
            archive.writestr(record, data)
        change(archive.getinfo("a/data/0"))


def two_with_one_name(path: Path) -> None:
    write_archive(path, checkpoint())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data/0", bytes(16))


def overlapping(path: Path) -> None:
    def point_back(info: zipfile.ZipInfo) -> None:
        info.header_offset = 0

    changed_directory(path, point_back)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


def legacy_tail(tail: bytes) -> Callable[[Path], None]:
    return lambda path: write_legacy(path, checkpoint(), tail)


def attribute(field: str, value: object) -> Callable[[Path], None]:
    return lambda path: changed_directory(path, lambda info: setattr(info, field, value))


KEYS = pickle.dumps(["0"], 2)
ARCHIVES = {
    "zip bomb": lambda path: write_archive(
        path, checkpoint(), {**RECORDS, "a/data/1": bytes(1 << 22)}, zipfile.ZIP_DEFLATED
    ),
    "compressed pickle": lambda path: write_archive(path, checkpoint(), RECORDS, zipfile.ZIP_BZIP2),
    "outside": lambda path: write_archive(path, checkpoint(), {**RECORDS, "../../harm": b""}),
    "absolute": lambda path: write_archive(path, checkpoint(), {**RECORDS, "/etc/harm": b""}),
    "two pickles": lambda path: write_archive(path, checkpoint(), {**RECORDS, "b/data.pkl": checkpoint()}),
    "big-endian": lambda path: write_archive(path, checkpoint(), {**RECORDS, "a/byteorder": b"big"}),
    "no storage": lambda path: write_archive(path, checkpoint(), {}),
    "no pickle": lambda path: write_archive(path, b"", {}),
    "other archive": lambda path: np.savez(path.open("wb"), weight=np.zeros(4)),
    "two with one name": two_with_one_name,
    "overlapping records": overlapping,
    "other checksum": attribute("CRC", 1),
    "larger record": attribute("file_size", 1 << 40),
    "larger in the archive": attribute("compress_size", 1 << 40),
    "place behind the end": attribute("header_offset", 1 << 30),
    "encrypted": attribute("flag_bits", 1),
    "unknown compression": attribute("compress_type", 99),
    "tar": tar,
    "Git LFS": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 0\n"),
    "a pickle alone": lambda path: path.write_bytes(pickle.dumps({"model": {}, "cfg": {}})),
    "legacy, no storage": legacy_tail(b""),
    "legacy, other key": legacy_tail(pickle.dumps(["1"], 2)),
    "legacy, key twice": legacy_tail(pickle.dumps(["0", "0"], 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)),
    "legacy, other length": legacy_tail(KEYS + struct.pack("<q4f", 3, 1, 2, 3, 4)),
    "legacy, cut": legacy_tail(KEYS + struct.pack("<q3f", 4, 1, 2, 3)),
    "legacy, longer": legacy_tail(KEYS + struct.pack("<q5f", 4, 1, 2, 3, 4, 5)),
    "legacy, large storage": lambda path: write_legacy(
        path, checkpoint(tensor(content=storage(count=1 << 40), size=(1 << 40,)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_are_refused(folder, write):
    write(folder / "foreign.pt")
    reads(folder / "foreign.pt")
    assert os.listdir() == ["foreign.pt"]


# -- safetensors ---------------------------------------------------------------------------------------------


def part(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "sound": ({"a": part(0, 8, [2]), "b": part(8, 16, [2])}, None),
    "overlap": ({"a": part(0, 12, [3]), "b": part(8, 16, [2])}, None),
    "gap": ({"a": part(0, 4, [1]), "b": part(8, 16, [2])}, None),
    "same place": ({"a": part(0, 16, [4]), "b": part(0, 16, [4])}, None),
    "behind the end": ({"a": part(0, 32, [8])}, None),
    "left over": ({"a": part(0, 8, [2])}, None),
    "other shape": ({"a": part(0, 16, [5])}, None),
    "zero inside": ({"a": part(0, 16, [4]), "b": part(8, 8, [0])}, None),
    "product overflows": ({"a": part(0, 16, [1 << 32, 1 << 32])}, None),
    "negative": ({"a": part(0, 16, [-4])}, None),
    "backwards": ({"a": part(16, 0, [4])}, None),
    "fraction": ({"a": part(0, 16, [4.0])}, None),
    "unknown type": ({"a": part(0, 16, [4], "F5")}, None),
    "no offsets": ({"a": {"dtype": "F32", "shape": [4]}}, None),
    "no entry": ({"a": 5}, None),
    "a list": ([1], None),
    "no JSON": (b"{", None),
    "nested": (b"[" * 100_000, None),
    "bloated": ({"__metadata__": {"a": "b" * (1 << 22)}, "a": part(0, 16, [4])}, None),
    "long header": ({"a": part(0, 16, [4])}, 1 << 62),
    "longer than the file": ({"a": part(0, 16, [4])}, 10_000),
    "no header": ({}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("header", "length"), HEADERS.values(), ids=HEADERS)
def test_safetensors(tmp_path, header, length, request):
    path = tmp_path / "foreign.safetensors"
    stored = StoredModel(path, {"model": {}, "task": {}}, {"a": torch.zeros(4)}, None, [])
    write_stored(stored, path)
    description = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**description, "crc32": None}))
    write_safetensors_file(path, header, bytes(16), length)
    if "sound" in request.node.name:
        assert read_stored(path).tensors["b"].tolist() == [0, 0]
        return
    with pytest.raises(DataError, match=r"foreign\.safetensors: "):
        read_stored(path)


DESCRIPTIONS = {
    "absent": None,
    "list": "[]",
    "nested": "[" * 100_000,
    "deep": '{"format": ' * 3000,
    "other": '{"format": "x"}',
    "no text": "\xff",
    "cfg": {"cfg": 5},
    "symbols": {"text": {"symbols": [1], "tokenizer": None}},
    "tokenizer": {"text": {"symbols": [], "tokenizer": "?"}},
}


@pytest.mark.parametrize("content", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_descriptions_beside_safetensors(tmp_path, content):
    write_safetensors_file(tmp_path / "foreign.safetensors", {"a": part(0, 16, [4])}, bytes(16))
    if isinstance(content, dict):
        sound = {"format": "av_ssl model 1", "cfg": {}, "text": None, "label_sets": []}
        content = json.dumps({**sound, **content})
    if content is not None:
        (tmp_path / "foreign.json").write_text(content, encoding="latin1")
    with pytest.raises(DataError, match=r"foreign\."):
        read_stored(tmp_path / "foreign.safetensors")


# -- landmarks and arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*CALLS.values(), *STATES.values(), *BOMBS.values()])
def test_landmarks_that_are_refused(folder, value):
    path = folder / "foreign.pkl"
    path.write_bytes(pickle.EMPTY_LIST + value + pickle.APPEND + pickle.STOP)
    with pytest.raises(DataError, match=r"foreign\.pkl: "):
        read_landmarks(path)
    assert os.listdir() == ["foreign.pkl"]


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


ARRAYS = {
    "objects": npy("'|O'", "(1,)", pickle.dumps([os.system])),
    "structures of objects": npy("[('a', '|O')]", "(1,)", pickle.dumps([os.system])),
    "huge": npy("'<f8'", "(1000000000000,)", bytes(8)),
    "overflow": npy("'<f8'", "(4611686018427387904, 4)", bytes(8)),
    "negative": npy("'<f8'", "(-1, 4)", bytes(8)),
    "code": npy("__import__('os').system('touch harm')", "(1,)"),
    "unknown type": npy("'<f99'", "(1,)"),
    "cut": npy("'<f8'", "(68, 2)", bytes(8)),
    "empty": b"",
    "no array": b"\x93NUMPY",
    "pickle": pickle.dumps([1]),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["npy", "npz"])
@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_arrays_that_are_refused(folder, content, zipped):
    path = folder / f"foreign.{'npz' if zipped else 'npy'}"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"foreign\.np"):
        read_landmarks(path)
    assert os.listdir() == [path.name]


def test_an_array_that_would_fill_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy("'<f8'", f"({9 << 20}, )", bytes(9 << 23)))
    with pytest.raises(DataError, match=r"bomb\.npz"):
        read_landmarks(tmp_path / "bomb.npz")


# -- damage --------------------------------------------------------------------------------------------------


def same(first: StoredModel, second: StoredModel) -> bool:
    return (
        first.cfg == second.cfg
        and first.tensors.keys() == second.tensors.keys()
        and all(torch.equal(x, second.tensors[key]) for key, x in first.tensors.items())
        and first.label_sets == second.label_sets
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_random_damage_is_an_error_or_changes_nothing(tmp_path, suffix):
    tensors = {f"layer.{k}": torch.randn(16, 8) for k in range(4)}
    cfg = {"model": {"_name": "av2vec", "encoder_layers": 4}, "task": {"data": "/data"}}
    path = tmp_path / f"sound{suffix}"
    stored = StoredModel(path, cfg, tensors, None, [["<s>", "<pad>", "</s>", "<unk>", "0"]])
    write_stored(stored, path)
    content, expected, rng = path.read_bytes(), read_stored(path), random.Random(0)
    refused = unchanged = 0
    for _ in range(300):
        path.write_bytes(damaged(content, rng))
        try:
            assert same(read_stored(path), expected)
        except DataError as error:
            refused += path.name in str(error)
            continue
        unchanged += 1
    assert refused + unchanged == 300
    assert refused > 200
