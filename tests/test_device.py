import ctypes
import platform
import sys

import pytest

from av_ssl import device
from tests.stock import run_interpreter

FAULTS = """
import resource, runpy, sys
if sys.argv[2] == "kept":
    runpy.run_path(sys.argv[1])["keep_freed_memory"]()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (1 << 26)
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize(("how", "least", "most"), [("kept", 0, 1000), ("given back", 10_000, 20_000)])
def test_memory_is_used_again(how, least, most, tmp_path):
    """Page faults while 64 MB, 16,384 pages, are written for the second time."""
    printed = run_interpreter([sys.executable, "-c", FAULTS, device.__file__, how], 0, tmp_path)
    assert least <= int(printed.split()[-1]) <= most


def test_other_c_libraries(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    device.keep_freed_memory()
