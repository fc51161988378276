import ctypes
import platform
import resource

import pytest
import torch

from av_ssl.tasks.memory import keep_freed_memory


def pages_of_a_large_tensor() -> int:
    """Page faults while 64 MB are written."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_memory_is_used_again():
    keep_freed_memory()
    # Not each time: between two of them a small tensor may take a part of the freed memory.
    assert min(pages_of_a_large_tensor() for _ in range(5)) < 1000  # of 16,384


def test_other_c_libraries(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
