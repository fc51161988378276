"""Argument types and defaults shared by the sub-commands.

Arguments that say where the shards of a long job run, shared by the commands that have some.

Arguments that choose the clips of a corpus, shared by the commands that read it.

Arguments of the commands that run a classifier over clips.

Names of the files in a prepared data folder.

Lists of clips and their labels on disk: what `av-ssl manifest` leaves in a data folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av_ssl.corpora import CORPORA, FOLDER, CorpusClip, read_corpus
from av_ssl.corpora.corpus import SPLITS, read_ids
from av_ssl.data.noise import NoiseMixer, parse_snr
from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.jobs import ClusterOptions


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: str) -> int:
    """Processes of a long job on this machine: one a core; with `cuda` one a GPU, as each of them loads the
    model."""
    if device != "cuda":
        return available_cores()
    import torch  # needed by no other argument, and slow to import

    return torch.cuda.device_count() or available_cores()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def at_least_two(text: str) -> int:
    """A whole number of at least 2."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {value}")
    return value


def share_or_number(text: str) -> float:
    """A share from 0 to below 1, or a whole number from 1 on."""
    value = float(text)
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"must be a share below 1 or a whole number, not {value:g}")
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


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--cluster` and the options of Slurm jobs; `--workers` is up to the command."""
    group = parser.add_argument_group("where the work is done")
    group.add_argument(
        "--cluster",
        choices=("local", "slurm"),
        default="local",
        help="processes on this machine, or Slurm jobs, --workers of them at a time (default: local)",
    )
    group.add_argument("--slurm-partition", metavar="NAME", help="(default: the cluster's)")
    group.add_argument("--slurm-hours", metavar="H", type=float, default=24.0, help="a job (default: 24)")
    group.add_argument("--slurm-cpus", metavar="N", type=positive, default=1, help="a job (default: 1)")
    group.add_argument("--slurm-gpus", metavar="N", type=int, default=0, help="a job (default: 0)")
    group.add_argument("--slurm-memory", metavar="GB", type=float, help="a job (default: the cluster's)")
    group.add_argument(
        "--slurm-option",
        metavar="KEY=VALUE",
        type=_key_and_value,
        action="append",
        default=[],
        help="further setting of sbatch, e.g. account=speech; may be repeated",
    )


def cluster_options(args: argparse.Namespace) -> ClusterOptions:
    """From the arguments of `add_cluster_arguments` and `--workers`."""
    of_slurm = {name: getattr(args, f"slurm_{name}") for name in ("partition", "hours", "cpus", "gpus")}
    of_slurm |= {"memory_gb": args.slurm_memory, "options": dict(args.slurm_option)}
    workers = args.workers or default_workers(getattr(args, "device", "cpu"))
    return ClusterOptions(args.cluster, workers, **of_slurm)


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    return key, value


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --corpus and --ids."""
    parser.add_argument(
        "--corpus",
        choices=sorted(CORPORA),
        default=FOLDER,
        help="what IN is; folder: any videos, ID.txt beside ID.mp4 is its transcript (default: folder)",
    )
    parser.add_argument(
        "--ids", metavar="FILE", type=Path, help="take only the clips that FILE lists, one id a line"
    )


def chosen_clips(args: argparse.Namespace) -> dict[str, CorpusClip]:
    """Clips of the corpus in `args.source` by id, without `args.out`; only those of --ids where given."""
    clips = read_corpus(args.corpus, args.source, skip=args.out)
    if args.ids is None:
        return clips
    ids = read_ids(args.ids, CORPORA[args.corpus])
    chosen = {name: clip for name, clip in clips.items() if name in ids}
    if not chosen:
        raise DataError(
            f"{args.ids}: none of its {len(ids)} ids (line 1: {next(iter(ids))}) is a clip of {args.source}, "
            f"which has e.g. {next(iter(clips))}; write the ids like that"
        )
    if len(chosen) < len(ids):
        print(f"{args.ids}: {len(ids) - len(chosen)} of {len(ids)} ids are not in {args.source}")
    return chosen


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare CHECKPOINT, MANIFEST, --device, --workers, --noise and --snr."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="of an av_classifier or a lupi_student"
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="the clips, e.g. DATA/test.tsv")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that read clips (default: 0, none of their own)"
    )
    parser.add_argument(
        "--noise", metavar="LIST", type=Path, help="add noise from the files that LIST names to every clip"
    )
    parser.add_argument("--snr", default="0", help="its signal-to-noise ratio in dB (default: 0)")


def noise_of(args: argparse.Namespace) -> NoiseMixer | None:
    """The noise that every clip gets, the same in every run; raises DataError when it cannot be."""
    return None if args.noise is None else NoiseMixer(args.noise, probability=1.0, snr=parse_snr(args.snr))


MODEL, PIECES, DICTIONARY = "spm.model", "spm.vocab", "dict.wrd.txt"
TOKENIZER_FILES = (MODEL, PIECES, DICTIONARY)
LABELLED = "labelled_"
FOLD = "fold_"
PART = "_data"  # end of the name of a folder whose training list is a part of the corpus, e.g. 30h_data

__all__ = [
    "DICTIONARY",
    "MODEL",
    "PIECES",
    "SPLITS",
    "TOKENIZER_FILES",
    "fold_folder",
    "fold_folders",
    "labelled_folder",
    "labelled_folders",
]


def labelled_folder(out: Path, clips: int) -> Path:
    """Folder whose training list is only `clips` transcribed clips."""
    return out / f"{LABELLED}{clips}"


def fold_folder(out: Path, name: str) -> Path:
    """Folder of a published division of the clips."""
    return out / f"{FOLD}{name}"


def fold_folders(out: Path) -> list[Path]:
    """All folders in `out` with a published division."""
    return sorted(path for path in out.glob(f"{FOLD}*") if path.is_dir())


def labelled_folders(out: Path) -> list[Path]:
    """All folders in `out` with a smaller training list, the one with the longest training text first."""
    labelled = [path for path in out.glob(f"{LABELLED}*") if path.name[len(LABELLED) :].isdecimal()]
    folders = [path for path in (*labelled, *out.glob(f"*{PART}")) if path.is_dir()]
    return sorted(folders, key=lambda path: (-_text_size(path), path.name))


def _text_size(folder: Path) -> int:
    text = folder / "train.wrd"
    return text.stat().st_size if text.is_file() else 0


ROOT = "/"
SPEAKER = "spk"  # suffix of the file with the speaker of each clip
LABELS = (SPEAKER, "emo")


@dataclass(frozen=True)
class Entry:
    """A clip in a list."""

    name: str
    line: str  # of the tsv
    transcript: str | None
    part: str
    labels: Mapping[str, str] = field(default_factory=dict)


def write_subset(out: Path, folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    """Lists of a part of the training clips, with the tokenizer of the whole."""
    write_lists(folder, lists)
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            write_atomically(folder / name, (out / name).read_bytes())


def write_lists(folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    """Write the lists of every split, and the classes that the training clips have of each kind of label."""
    for split in SPLITS:
        entries = lists[split]
        _write_lines(folder / f"{split}.tsv", [ROOT, *(entry.line for entry in entries)])
        _write_column(folder / f"{split}.wrd", [entry.transcript for entry in entries])
        for kind in LABELS:
            _write_column(folder / f"{split}.{kind}", [entry.labels.get(kind) for entry in entries])
        print(f"{folder / split}.tsv: {len(entries)} clips, {_labels(entries)}")
    for kind in LABELS:
        _write_classes(folder / f"classes.{kind}.txt", [entry.labels.get(kind) for entry in lists["train"]])


def _write_classes(path: Path, labels: Sequence[str | None]) -> None:
    """The classes of a column, sorted, where every clip has one."""
    names = {label for label in labels if label}
    _write_column(path, sorted(names) if all(labels) else [])


def _write_column(path: Path, values: Sequence[str | None]) -> None:
    known = [value for value in values if value]
    if known and len(known) == len(values):
        _write_lines(path, known)
    else:
        path.unlink(missing_ok=True)  # one of an earlier run would not fit the list


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _labels(entries: Sequence[Entry]) -> str:
    without = [entry.name for entry in entries if not entry.transcript]
    if len(without) == len(entries):
        return "no transcripts"
    if without:
        return f"{len(without)} without transcript (e.g. {without[0]}), so no .wrd"
    return "all with transcripts"
