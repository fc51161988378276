"""`av-ssl doctor`: what works on this machine, tried and not only looked up, and what to do if not."""

from __future__ import annotations

import argparse
import importlib
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from av_ssl import __version__
from av_ssl.jobs import available_cores
from av_ssl.media import INSTALL

WORKS, MISSING, BROKEN = "works", "missing", "BROKEN"


class AbsentError(Exception):
    """Something is not on this machine, and nothing is broken."""


@dataclass(frozen=True)
class Trial:
    """``attempt`` returns a detail, e.g. a version, and raises when the thing does not work.

    ``needed``: training or the default preprocessing does not work without it.
    """

    name: str
    attempt: Callable[[], str]
    fix: str
    needed: bool = False

    def run(self) -> tuple[str, str]:
        """Status and detail."""
        try:
            return WORKS, self.attempt()
        except ModuleNotFoundError as error:
            return MISSING, f"{error.name} is not installed: {self.fix}"
        except AbsentError as error:
            return MISSING, f"{error}; {self.fix}"
        except Exception as error:  # whatever a broken installation raises is what the user is to see
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return BROKEN, f"{reason}; {self.fix}"


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dlib-model", metavar="FILE", type=Path, help="also try the dlib back-end with this shape predictor"
    )


def run_doctor(args: argparse.Namespace) -> int:
    """Try everything, print a table; 0 when all that is needed works."""
    print(f"av_ssl {__version__}, Python {platform.python_version()}, {platform.platform()}")
    free = _gigabytes(shutil.disk_usage(Path.cwd()).free)
    print(f"{available_cores()} cores, {free} free in {Path.cwd()}\n")
    wrong = []
    for title, trials in _sections(args.dlib_model).items():
        print(title)
        for trial in trials:
            status, detail = trial.run()
            print(f"  {status:8}{trial.name:32}{detail}", flush=True)
            if trial.needed and status != WORKS:
                wrong.append(trial.name)
    print(f"\nneeded, but not working: {', '.join(wrong)}" if wrong else "\nall that is needed works")
    return 1 if wrong else 0


def _sections(dlib_model: Path | None) -> dict[str, list[Trial]]:
    preprocess = "pip install 'av_ssl[preprocess]'"
    fairseq = "python -m av_ssl.compat.install_fairseq"
    return {
        "training and decoding": [
            Trial("torch", _torch, "pip install torch", needed=True),
            Trial("GPU", _gpu, "training on CPUs is for tests only"),
            Trial("bfloat16 on the CPU", _bfloat16, "use float32 on this CPU, e.g. common.bf16=false"),
            Trial("fairseq", _fairseq, fairseq, needed=True),
            Trial("plug-in", _plugin, "see the first error above", needed=True),
            Trial(
                "stock commands", _stock_commands, "start them with: python -m av_ssl_fairseq_hook COMMAND"
            ),
            Trial("audio files", _version("soundfile"), "pip install soundfile", needed=True),
            Trial("tokenizers", _version("sentencepiece"), "pip install sentencepiece", needed=True),
        ],
        "cropping": [
            Trial("video and audio (PyAV)", _pyav, preprocess, needed=True),
            Trial("back-end opencv (default)", _opencv, preprocess, needed=True),
            Trial("back-end files", lambda: "needs --landmarks DIR", ""),
            Trial("back-end mediapipe", _mediapipe, INSTALL["mediapipe"]),
            Trial("back-end dlib", lambda: _dlib(dlib_model), INSTALL["dlib"]),
        ],
        "large jobs": [
            Trial("targets: scikit-learn", _version("sklearn"), "pip install scikit-learn"),
            Trial("clusters: submitit", _version("submitit"), "pip install submitit, for --cluster slurm"),
            Trial("clusters: Slurm", _slurm, "submit from a login node of the cluster"),
        ],
        "analysis": [
            Trial("probes: scikit-learn", _version("sklearn"), "pip install scikit-learn"),
            Trial("figures: matplotlib", _version("matplotlib"), "pip install matplotlib"),
        ],
    }


def _version(module: str) -> Callable[[], str]:
    def attempt() -> str:
        return str(getattr(importlib.import_module(module), "__version__", "unknown version"))

    return attempt


def _torch() -> str:
    import torch

    (torch.ones(2, 2) @ torch.ones(2, 2)).sum().item()
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise AbsentError("torch finds none")
    names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    (torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")).sum().item()
    return ", ".join(f"{one.name} ({_gigabytes(one.total_memory)})" for one in names)


def _bfloat16() -> str:
    from av_ssl.modules.bfloat16_check import LARGEST_ERROR, bfloat16_errors

    errors = bfloat16_errors()
    wrong = [f"{name} ({error:.2g})" for name, error in errors.items() if error > LARGEST_ERROR]
    if wrong:
        raise RuntimeError(f"relative errors against float32: {', '.join(wrong)}")
    return (
        f"{len(errors)} convolutions and matrix products agree with float32 "
        f"(relative error at most {max(errors.values()):.2g})"
    )


def _fairseq() -> str:
    import fairseq

    return str(fairseq.__version__)


def _plugin() -> str:
    from fairseq.models import MODEL_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    import av_ssl.tasks  # noqa: F401 - registers everything

    tasks, models = (
        sorted(name for name, part in registry.items() if part.__module__.startswith("av_ssl."))
        for registry in (TASK_REGISTRY, MODEL_REGISTRY)
    )
    return f"tasks {', '.join(tasks)}; models {', '.join(models)}"


def _stock_commands() -> str:
    command = "fairseq-hydra-train"
    path = shutil.which(command) or shutil.which(command, path=str(Path(sys.executable).parent))
    if path is None:
        raise RuntimeError(f"{command} is neither on the PATH nor beside {sys.executable}")
    hooks = [folder for folder in sys.path if Path(folder, "av_ssl_fairseq_hook.pth").is_file()]
    if not hooks:
        raise RuntimeError("av_ssl_fairseq_hook.pth is in no folder that Python reads at its start")
    return path


def _pyav() -> str:
    import av
    import numpy as np

    from av_ssl.media.audio import read_audio, write_audio
    from av_ssl.media.video import read_video, write_video

    with TemporaryDirectory() as folder:
        write_video(Path(folder, "a.mp4"), np.zeros((5, 96, 96), np.uint8))
        write_audio(Path(folder, "a.wav"), np.zeros(640, np.int16))
        shapes = read_video(Path(folder, "a.mp4")).shape, read_audio(Path(folder, "a.wav")).shape
    if shapes != ((5, 96, 96), (640,)):
        raise RuntimeError(f"a clip that was written came back as {shapes}")
    return f"{av.__version__}; wrote and read h264 and wav"


def _opencv() -> str:
    import cv2
    import numpy as np

    from av_ssl.media.face_mesh import FaceMesh, Region

    mesh = FaceMesh()
    gray = np.full((192, 192, 3), 128, np.uint8)
    found, (score, points) = mesh.detect(gray), mesh.landmarks(gray, Region((96.0, 96.0), 192.0))
    if found or score > 0.5 or points.shape != (468, 3):
        raise RuntimeError("the face models find a face in a gray image")
    return f"OpenCV {cv2.__version__}; both models run"


def _mediapipe() -> str:
    import mediapipe
    import numpy as np

    from av_ssl.media.backends import MediapipeBackend

    MediapipeBackend().faces(np.zeros((64, 64, 3), np.uint8))
    return str(mediapipe.__version__)


def _dlib(model: Path | None) -> str:
    import dlib

    if model is None:
        return f"{dlib.__version__}; needs --dlib-model FILE"
    from av_ssl.media.backends import DlibBackend

    DlibBackend(model)
    return f"{dlib.__version__}; {model} finds 68 points"


def _slurm() -> str:
    path = shutil.which("sbatch")
    if path is None:
        raise AbsentError("no sbatch on the PATH")
    return path


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.0f} GB"
