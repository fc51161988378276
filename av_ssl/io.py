"""Writing files so that a killed job or a full disk never leaves one that looks finished.

What files in a folder were made with, so that results of different settings never mix.

Writing an `.npy` file whose number of rows is known only at its end.

A progress bar with the time left, for a terminal and for a log file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from tqdm import tqdm

from av_ssl.errors import DataError, MediaError

PARTIAL = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """`atomic_file` for content that is at hand."""
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file under a temporary name beside `path`, renamed when the block ends without error.

    Makes the folder. Raises MediaError, which names the file, when the disk is full or the folder cannot be
    written.
    """
    # Host and process are in the name so that `remove_abandoned` can tell whether the writer still lives.
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


def remove_abandoned(folder: Path) -> int:
    """Delete temporary files below `folder` whose writer on this machine is gone; returns how many."""
    removed = 0
    host = socket.gethostname()
    for parent, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(f"{PARTIAL}-{host}-"):
                continue
            pid = name[len(f"{PARTIAL}-{host}-") :].split("-")[0]
            if pid.isdecimal() and not _alive(int(pid)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(parent, name))
                    removed += 1
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def keep_settings(path: Path, settings: Mapping[str, Any], mend: str) -> None:
    """Note `settings` in the file, or compare with what it holds.

    Raises DataError, which names the settings that differ and ends with `mend`, or when the file is damaged.
    """
    if path.exists():
        check_settings(path, settings, mend)
    else:
        write_atomically(path, json.dumps(settings, indent=1).encode() + b"\n")


def check_settings(path: Path, settings: Mapping[str, Any], mend: str) -> None:
    """Compare `settings` with what the file holds, if it is there; raises DataError, see `keep_settings`."""
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text())
        kept_items = dict(kept)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: holds no settings ({error}); {mend}") from error
    differing = [
        f"{name} {_shown(kept_items.get(name))} (now {_shown(settings.get(name))})"
        for name in dict.fromkeys([*kept_items, *settings])
        if kept_items.get(name) != settings.get(name)
    ]
    if differing:
        raise DataError(f"{path}: what is here was made with {', '.join(differing)}; {mend}")


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; raises DataError when it cannot be read."""
    result = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return result.hexdigest()


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 else text


@contextlib.contextmanager
def growing_array(
    path: Path, row: int | tuple[int, ...], dtype: str
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Append rows `[n, *row]` to a new file, which gets its name when the block ends without error.

    Raises MediaError, which names the file, when it cannot be written.
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


LOG_EVERY = 15  # seconds between lines where there is no terminal


class ProgressBar:
    """Shows `done` of `total` clips; appears with the first `update`."""

    def __init__(self, unit: str = "clip") -> None:
        self._unit = unit
        self._bar: tqdm | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are finished; the speed leaves out what the first call finds."""
        if self._bar is None:
            terminal = sys.stderr.isatty()
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=self._unit,
                mininterval=0.5 if terminal else LOG_EVERY,
                dynamic_ncols=terminal,
            )
        self._bar.update(done - self._bar.n)
