"""Writing an `.npy` file whose number of rows is known only at its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from av_ssl.errors import MediaError
from av_ssl.media.files import PARTIAL


@contextlib.contextmanager
def growing_array(path: Path, dim: int, dtype: str) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Append rows `[n, dim]` to a new file, which gets its name when the block ends without error.

    Raises MediaError, which names the file, when it cannot be written.
    """
    # Named as `write_atomically` does, so that `remove_abandoned` clears up after a killed process.
    partial = path.parent / f"{PARTIAL}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0, dim)}
    rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            write_array_header_1_0(file, header)
            start = file.tell()

            def append(frames: NDArray[Any]) -> None:
                nonlocal rows
                file.write(np.ascontiguousarray(frames, dtype).tobytes())
                rows += len(frames)

            yield append
            file.seek(0)
            # numpy leaves room in a header for the first dimension to grow.
            write_array_header_1_0(file, {**header, "shape": (rows, dim)})
            if file.tell() != start:
                raise RuntimeError(f"numpy {np.__version__} writes headers whose length depends on the shape")
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free space or make the folder writable, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
