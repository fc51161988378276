"""What torch computes on: device, threads, memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import torch

from av_ssl.errors import DataError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
LARGEST = 2**31 - 1


def device_of(device: str, rank: int = 0) -> str:
    """A device by torch's name; DataError if there is no GPU.

    Args:
        device: ``cpu``; ``cuda``: the GPUs take turns by ``rank``; ``auto``: a GPU if there is one.
        rank: number of a shard or process.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DataError(f"--device {device}: torch finds no GPU here; use --device cpu")
    return f"cuda:{rank % torch.cuda.device_count()}"


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Let torch use this many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of giving it back to Linux.

    By default each large tensor gets new memory, which Linux fills with zeros page by page, in every
    training step. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
