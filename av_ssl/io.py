"""Files that survive kills and full disks, settings kept beside results, and a progress bar.

* :func:`atomic_file` and its kin write under a temporary name and rename at the end, so that an unfinished
  file never looks finished.
* :func:`keep_settings` notes what the files of a folder were made with and refuses other settings later.
* :class:`ProgressBar` shows speed and time left, on a terminal and in a log file.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, write_array_header_1_0
from numpy.typing import NDArray
from tqdm import tqdm

from av_ssl.errors import DataError, MediaError

PARTIAL = ".partial"

# -- files ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file under a temporary name; rename it to ``path`` when the block ends without error.

    Creates the folder. Raises MediaError if the disk is full or the folder cannot be written.
    """
    # Host and process are in the name so that `remove_abandoned` can check whether the writer still runs.
    partial = path.parent / f"{PARTIAL}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "xb") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free space or make the folder writable, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


def check_writable(folder: Path) -> None:
    """Create a folder; MediaError, before work is done in vain, where files cannot be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MediaError(
            f"{folder}: cannot be written ({error.strerror}); make it writable, or name another folder"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file for people and programs, see :func:`atomic_file`."""
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


LFS_POINTER = b"version https://git-lfs"
POINTER = "it is a pointer of Git LFS, not the file itself: run git lfs pull"


def is_pointer(path: Path) -> bool:
    """Whether a file is what a Git checkout without LFS has in place of a large file."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


UNCLAIMED = 0.1
"""Share of a wav file behind its last part, where tags of other formats may lie."""


def wav_fault(path: Path) -> str:
    """What is wrong with the lengths that a wav file states, by which decoders cut it; empty: nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        stated, end = int.from_bytes(head[4:8], "little"), len(head)
        # 0 and all ones: written to a pipe, or RF64.
        if head[:4] != b"RIFF" or head[8:] != b"WAVE" or stated in (0, 0xFFFFFFFF):
            return ""
        if size < 8 + stated - stated % 2:  # some count a last byte of padding without writing it
            return f"is truncated by {stated + 8 - size} bytes; copy it again, or make it again"
        while len(part := file.read(8)) == 8 and all(32 <= byte < 127 for byte in part[:4]):
            length = int.from_bytes(part[4:], "little")
            if part[:4] == b"RIFF":
                return "has another wav file behind the first; join their sound: sox FIRST SECOND OUT.wav"
            if part[:4] == b"data" and (not length or end + 8 + length > size):
                return ""  # decoders read up to the end of the file
            end += 8 + length + length % 2
            file.seek(end)
    if size - end > UNCLAIMED * size:
        fix = "correct its header: sox --ignore-length IN OUT.wav"
        return f"has {size - end} bytes behind the samples that its header states; {fix}"
    return ""


BYTE_ORDER_MARK = "\ufeff"
"""Editors write it at the start of a file; where files are joined, it stands at the start of any line."""


def read_text(path: Path, fix: str, problem: str = "cannot be read") -> str:
    """The text of a file, see `decoded`; raises DataError, which ends in ``fix``, if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {problem} ({error.strerror}); {fix}") from error
    return decoded(content, path, fix)


def decoded(content: bytes, path: Path, fix: str) -> str:
    r"""The text of UTF-8, or of UTF-16 with a byte-order mark, with ``\n`` at the end of lines.

    Byte-order marks are removed. Raises DataError, which names ``path`` and ends in ``fix``, if the encoding
    is another one.
    """
    if content.startswith(LFS_POINTER):
        raise DataError(f"{path}: {POINTER}")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError as error:
        line = 1 if wide else content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: is not {'UTF-16' if wide else 'UTF-8'} (byte {error.start}); convert it "
            f"with iconv -t UTF-8, or {fix}"
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: is no text, or UTF-16 without a byte-order mark: convert it, or {fix}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix(BYTE_ORDER_MARK).replace("\n" + BYTE_ORDER_MARK, "\n")


def unicode_form(symbols: Iterable[str]) -> Literal["NFC", "NFD"]:
    """How a dictionary writes accents: as one code point with their letter, or apart (NFD)."""
    symbols = list(symbols)
    composed_only = all(unicodedata.is_normalized("NFC", symbol) for symbol in symbols)
    apart_only = all(unicodedata.is_normalized("NFD", symbol) for symbol in symbols)
    return "NFD" if apart_only and not composed_only else "NFC"


def composed(name: str) -> str:
    """``name`` with one code point for each accented letter (NFC): systems and editors differ in it."""
    return unicodedata.normalize("NFC", name)


def existing(path: Path) -> Path:
    """``path``, or the file that is there under the same name in another Unicode form."""
    if str(path).isascii() or path.exists():
        return path
    folder = existing(path.parent)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if composed(name) == composed(path.name):
                return folder / name
    return path


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """The object in a JSON file; DataError, which ends in ``fix``, if it is missing or damaged."""
    text = read_text(path, fix)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({error}); {fix}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is damaged (not a JSON object); {fix}")
    return content


@contextlib.contextmanager
def growing_array(
    path: Path, row: int | tuple[int, ...], dtype: str
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write an ``.npy`` file whose number of rows is not known in advance; yields a function that appends
    rows ``[n, *row]``. Atomic, see :func:`atomic_file`.
    """
    shape = (row,) if isinstance(row, int) else row
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0, *shape)}
    rows = 0
    with atomic_file(path) as file:
        write_array_header_1_0(file, header)
        start = file.tell()

        def append(frames: NDArray[Any]) -> None:
            nonlocal rows
            file.write(np.ascontiguousarray(frames, dtype).tobytes())
            rows += len(frames)

        yield append
        file.seek(0)
        # numpy leaves room in a header for the first dimension to grow.
        write_array_header_1_0(file, {**header, "shape": (rows, *shape)})
        if file.tell() != start:
            raise RuntimeError(f"numpy {np.__version__} writes headers whose length depends on the shape")


# numpy parses the header of a file as a Python literal, which fails at times in Python 3.11 if several
# threads do so at once (https://github.com/python/cpython/issues/106905).
_READING_HEAD = threading.Lock()
MOST_INFLATED = 100
"""Times that the arrays of an ``.npz`` file may be larger than the file, above 64 MiB."""


def mapped_array(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file, memory-mapped, read-only; several threads may call this at once.

    Raises OSError or ValueError if the file is damaged, not as long as its header says, or holds objects.
    """
    with path.open("rb") as file:
        if not file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
            raise ValueError(POINTER if is_pointer(path) else "it is no .npy file")
    try:
        with _READING_HEAD:
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        size = array.offset + array.nbytes
    except OSError:
        raise
    except Exception as error:  # numpy parses the header as Python, which damage can break in any way
        raise ValueError(str(error) or type(error).__name__) from error
    if size != path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {size}")
    return array


def zipped_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; raises OSError or ValueError if it is damaged or a zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > max(1 << 26, MOST_INFLATED * path.stat().st_size):
            raise ValueError(f"it would take {size} bytes of memory")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError:
        raise
    except Exception as error:  # as above
        raise ValueError(str(error) or type(error).__name__) from error


def remove_abandoned(folder: Path) -> int:
    """Delete temporary files below ``folder`` whose writer on this machine has ended; return their number."""
    removed = 0
    prefix = f"{PARTIAL}-{socket.gethostname()}-"
    for parent, _, names in os.walk(folder):
        for name in names:
            pid = name.removeprefix(prefix).split("-")[0]
            if name.startswith(prefix) and pid.isdecimal() and not _is_running(int(pid)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(parent, name))
                    removed += 1
    return removed


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # another user's process may not be signalled
    return True


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raise DataError if it cannot be read."""
    result = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return result.hexdigest()


# -- settings ------------------------------------------------------------------------------------------------


def keep_settings(
    path: Path, settings: Mapping[str, Any], fix: str, defaults: Mapping[str, Any] | None = None
) -> None:
    """Write ``settings`` to a file, or compare them with those that it holds.

    Args:
        path: a JSON file beside what is made with these settings.
        settings: what decides the content of the files.
        fix: what to do about other settings; it ends the error message.
        defaults: values of settings that a file of an earlier version may lack.

    Raises DataError if the file is damaged or holds other settings, which are named.
    """
    if path.exists():
        check_settings(path, settings, fix, defaults)
    else:
        write_json(path, settings)


def check_settings(
    path: Path, settings: Mapping[str, Any], fix: str, defaults: Mapping[str, Any] | None = None
) -> None:
    """Compare ``settings`` with those of a file if it exists; arguments and errors of keep_settings."""
    if not path.exists():
        return
    kept = {**(defaults or {}), **read_json(path, fix)}
    differing = [
        f"{name} {_shown(kept.get(name))} (now {_shown(settings.get(name))})"
        for name in dict.fromkeys([*kept, *settings])
        if kept.get(name) != settings.get(name)
    ]
    if differing:
        raise DataError(f"{path}: the files here were made with {', '.join(differing)}; {fix}")


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 else text  # a digest


# -- progress ------------------------------------------------------------------------------------------------

LOG_EVERY = 15  # seconds between lines where there is no terminal


class ProgressBar:
    """Show ``done`` of ``total`` with speed and time left; the bar appears at the first :meth:`update`."""

    def __init__(self, unit: str = "clip", title: str | None = None) -> None:
        self._unit = unit
        self._title = title
        self._bar: tqdm | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are finished; the speed leaves out those of the first call."""
        if self._bar is None:
            terminal = sys.stderr.isatty()
            self._bar = tqdm(
                desc=self._title,
                total=total,
                initial=done,
                unit=self._unit,
                mininterval=0.5 if terminal else LOG_EVERY,
                dynamic_ncols=terminal,
            )
        self._bar.update(done - self._bar.n)
