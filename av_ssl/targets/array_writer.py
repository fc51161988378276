"""Writing an `.npy` file whose number of rows is known only at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from av_ssl.media.files import atomic_file


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
