"""Argument types and groups of arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from av_ssl.corpora import CORPORA, FOLDER, CorpusClip, read_corpus
from av_ssl.corpora.corpus import read_id_lists, read_ids
from av_ssl.errors import DataError
from av_ssl.jobs import JobOptions, available_cores
from av_ssl.layout import STREAMS
from av_ssl.media.recording import FACE_RULES, SPEAKER
from av_ssl.transcription.transcript import SearchOptions

if TYPE_CHECKING:
    from av_ssl.transcription.onnx_recogniser import OnnxRecogniser
    from av_ssl.transcription.recogniser import Recogniser

FLOAT32 = "float32"


def default_workers(device: str) -> int:
    """Processes of a long job on this machine: one a core; with `cuda` one a GPU, as each of them loads the
    model."""
    if device != "cuda":
        return available_cores()
    import torch  # needed by no other argument, and slow to import

    return torch.cuda.device_count() or available_cores()


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return value

    return whole_number


not_negative, positive, at_least_two = _at_least(0), _at_least(1), _at_least(2)


def amount(text: str) -> float:
    """A finite number from 0 on."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value:g}")
    return value


def share_or_number(text: str) -> float:
    """A share from 0 to below 1, or a whole number from 1 on."""
    value = float(text)
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"must be a share below 1 or a whole number, not {value:g}")
    return value


def share(text: str) -> float:
    """A share from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {value:g}")
    return value


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    """Into how many parts the clips of a split are worked on, and how many at a time."""
    parser.add_argument(
        "--shards",
        metavar="N",
        type=positive,
        help="parts of a split (default: one for 1000 clips, at least 16)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        help="processes, or jobs at a time on a cluster (default: one a core; with --device cuda one a GPU)",
    )


def add_recogniser_arguments(parser: argparse.ArgumentParser) -> None:
    """The model that recognises, its streams and device; see `open_recogniser`."""
    parser.add_argument(
        "checkpoint", metavar="MODEL", type=Path, help="a fine-tuned recogniser: .pt, .safetensors or .onnx"
    )
    parser.add_argument(
        "--modalities", choices=tuple(STREAMS), help="(default: those that it was trained with)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if there is one)"
    )
    parser.add_argument(
        "--precision",
        choices=(FLOAT32, "bfloat16"),
        default=FLOAT32,
        help="of the model; bfloat16 is faster on GPUs and on CPUs with AMX, and may change a few words "
        "(default: float32)",
    )


def check_paths(*paths: Path | None) -> None:
    """Raise DataError for a path that does not exist, before torch is imported, which takes seconds."""
    for path in paths:
        try:
            there = path is None or path.exists()
        except OSError as error:  # a folder above it is not readable, or the name is too long
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        if not there:
            raise DataError(f"{path}: there is no such file or folder; check the path")


def open_recogniser(
    args: argparse.Namespace, search: SearchOptions, task_options: tuple[str, ...] = ()
) -> Recogniser | OnnxRecogniser:
    """The recogniser of `add_recogniser_arguments`."""
    # Each of the two needs packages that the other does not.
    if args.checkpoint.suffix == ".onnx":
        from av_ssl.transcription.onnx_recogniser import OnnxRecogniser

        given = {"--task-option": task_options, "--device cuda": args.device == "cuda"}
        given[f"--precision {args.precision}"] = args.precision != FLOAT32
        for name in ("lenpen", "max_len_a", "max_len_b"):
            given[f"--{name.replace('_', '-')}"] = getattr(search, name) != getattr(SearchOptions, name)
        if option := next((option for option, used in given.items() if used), None):
            raise DataError(
                f"{option}: {args.checkpoint} runs on a CPU in float32, without task or bounds on lengths; "
                "name the .pt file"
            )
        return OnnxRecogniser(args.checkpoint, search.beam)
    # Threads of torch that wait for each other would keep the cores busy on which the next part is cropped.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from av_ssl.transcription.recogniser import RecogniserSpec

    return RecogniserSpec(
        args.checkpoint.absolute(), args.modalities, args.device, search, task_options, args.precision
    ).open()


def add_face_argument(group: argparse._ActionsContainer) -> None:
    """Which of several faces."""
    group.add_argument(
        "--face",
        metavar="WHICH",
        type=_face,
        default=SPEAKER,
        help="of several faces: speaker (the mouth that moves with the sound), left, right, largest, or a "
        "number: 1 is the first to appear, the leftmost of several (default: speaker)",
    )


def _face(text: str) -> str | int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text not in FACE_RULES:
        raise argparse.ArgumentTypeError(f"must be {', '.join(FACE_RULES)} or a number from 1, not {text!r}")
    return text


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """`--cluster` and the options of Slurm jobs; `--workers` is up to the command."""
    group = parser.add_argument_group("where the work is done")
    group.add_argument(
        "--cluster",
        choices=("local", "slurm"),
        default="local",
        help="processes on this machine, or Slurm jobs, --workers of them at a time (default: local)",
    )
    group.add_argument("--slurm-partition", metavar="NAME", help="(default: the cluster's)")
    group.add_argument("--slurm-hours", metavar="H", type=amount, default=24.0, help="a job (default: 24)")
    group.add_argument("--slurm-cpus", metavar="N", type=positive, default=1, help="a job (default: 1)")
    group.add_argument("--slurm-gpus", metavar="N", type=not_negative, default=0, help="a job (default: 0)")
    group.add_argument("--slurm-memory", metavar="GB", type=amount, help="a job (default: the cluster's)")
    group.add_argument(
        "--slurm-option",
        metavar="KEY=VALUE",
        type=_key_and_value,
        action="append",
        default=[],
        help="further setting of sbatch, e.g. account=speech; may be repeated",
    )


def job_options(args: argparse.Namespace) -> JobOptions:
    """From the arguments of `add_job_arguments` and `--workers`."""
    of_slurm = {name: getattr(args, f"slurm_{name}") for name in ("partition", "hours", "cpus", "gpus")}
    of_slurm |= {"memory_gb": args.slurm_memory, "options": dict(args.slurm_option)}
    workers = args.workers or default_workers(getattr(args, "device", "cpu"))
    return JobOptions(args.cluster, workers, **of_slurm)


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    return key, value


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        choices=sorted(CORPORA),
        default=FOLDER,
        help="what IN is; folder: any videos, ID.txt beside ID.mp4 is its transcript (default: folder)",
    )
    parser.add_argument(
        "--ids",
        metavar="FILE",
        type=Path,
        help="take only the clips that FILE lists, one id a line; a folder of such lists (train.txt, "
        "valid.txt, labelled_100.txt ...) also decides the splits",
    )


def chosen_clips(args: argparse.Namespace) -> dict[str, CorpusClip]:
    """Clips of the corpus in `args.source` by id, without `args.out`; only those of --ids where given."""
    clips = read_corpus(args.corpus, args.source, skip=args.out)
    if args.ids is None:
        return clips
    corpus = CORPORA[args.corpus]
    if args.ids.is_dir():
        listed = set().union(*read_id_lists(args.ids, corpus, clips).values())
        return {name: clip for name, clip in clips.items() if name in listed}
    ids = read_ids(args.ids, corpus, clips)
    chosen = {name: clip for name, clip in clips.items() if name in ids}
    if not chosen:
        raise DataError(
            f"{args.ids}: none of its {len(ids)} ids (line 1: {next(iter(ids))}) is a clip of {args.source}, "
            f"which has e.g. {next(iter(clips))}; write the ids like that"
        )
    unknown = [name for name in ids if name not in clips]
    if unknown:
        first = f"the first is {unknown[0]} on line {ids[unknown[0]]}"
        print(f"{args.ids}: {len(unknown)} of {len(ids)} ids are not in {args.source}; {first}")
    return chosen
