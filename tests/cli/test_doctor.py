"""`av-ssl doctor` says what works, what is missing and what is broken."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from av_ssl.cli import doctor

from .conftest import call


@pytest.fixture(scope="module")
def printed():
    """Output here, where all that is needed is installed."""
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text="", **_: lines.extend(text.split("\n")))
        assert call("doctor") == 0
    return lines


def line_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if name in line)


def test_what_is_needed_works(printed):
    assert "all that is needed works" in printed
    for name in ("torch", "fairseq", "video and audio (PyAV)", "back-end opencv", "tokenizers"):
        assert line_of(printed, name).split()[0] == "works"
    assert "av_pretraining" in line_of(printed, "plug-in")


def fails(error: BaseException):
    def attempt() -> str:
        raise error

    return attempt


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ModuleNotFoundError("no", name="dlib"), "missing", "dlib is not installed: pip install dlib-bin"),
        (doctor.AbsentError("no GPU"), "missing", "no GPU; pip install dlib-bin"),
        (
            OSError("libGL.so.1:\n cannot open"),
            "BROKEN",
            "OSError: libGL.so.1: cannot open; pip install dlib-bin",
        ),
    ],
)
def test_what_does_not_work_is_told_with_its_mend(error, status, text):
    assert doctor.Trial("dlib", fails(error), "pip install dlib-bin").run() == (status, text)


class WrongKernel(TorchDispatchMode):
    """One operation whose bfloat16 output gets a wrong number; in every third run, if `seldom`."""

    def __init__(self, operation, value: float, seldom: bool) -> None:
        super().__init__()
        self.operation, self.value, self.every, self.calls = operation, value, 3 if seldom else 1, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is self.operation:
            first = output[1] if isinstance(output, tuple) else output
            if first.dtype == torch.bfloat16:
                self.calls += 1
                if self.calls % self.every == 0:
                    first.view(-1)[0] = self.value
        return output


aten = torch.ops.aten


@pytest.mark.parametrize(
    ("operation", "value", "seldom", "wrong", "right"),
    [
        (aten.convolution.default, 1e3, False, "3 x 3 convolution (", "linear layer"),
        (
            aten.convolution_backward.default,
            torch.nan,
            True,
            "3 x 3 convolution, stride 2 (inf)",
            "linear layer",
        ),
        (aten.mm.default, torch.inf, False, "linear layer (inf)", "convolution"),
        (aten.bmm.default, 1e3, False, "batched matrix product (", "convolution"),
    ],
)
def test_wrong_kernels_of_bfloat16_are_named(operation, value, seldom, wrong, right):
    trial = next(one for one in doctor._sections(None)["training and decoding"] if "bfloat16" in one.name)
    with WrongKernel(operation, value, seldom):
        status, detail = trial.run()
    assert (status, trial.needed) == ("BROKEN", False)
    assert wrong in detail
    assert right not in detail
    assert "float32" in detail


def test_bfloat16_is_right_here(printed):
    line = line_of(printed, "bfloat16")
    assert line.split()[0] == "works"
    assert "15 convolutions and matrix products agree with float32" in line


def test_exit_status_depends_on_what_is_needed(monkeypatch, capsys):
    for needed, status in ((False, 0), (True, 1)):
        trial = doctor.Trial("PyAV", fails(RuntimeError("no h264")), "reinstall", needed)
        monkeypatch.setattr(doctor, "_sections", lambda model, trial=trial: {"all": [trial]})
        assert call("doctor") == status
    assert "needed, but not working: PyAV" in capsys.readouterr().out


def test_a_wrong_dlib_model_is_named(monkeypatch, tmp_path, capsys):
    if "dlib" not in sys.modules:
        pytest.importorskip("dlib")
    call("doctor", "--dlib-model", tmp_path / "absent.dat")
    assert "absent.dat: there is no such file" in capsys.readouterr().out
