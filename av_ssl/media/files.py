"""Writing files so that a killed job or a full disk never leaves one that looks finished."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from av_ssl.errors import MediaError

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
