"""The lists of a data folder for `av-ssl transcribe`; a module of its own, as it imports torch."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from av_ssl.cli.arguments import job_options
from av_ssl.device import device_of
from av_ssl.errors import DataError
from av_ssl.jobs import available_cores
from av_ssl.layout import FRAME_RATE, SPLITS
from av_ssl.manifest import lists_clips
from av_ssl.transcription.folder import Lengths, TranscriptPlan, Transcripts, transcribe
from av_ssl.transcription.hypotheses import hypothesis_row
from av_ssl.transcription.recogniser import RecogniserSpec
from av_ssl.transcription.transcript import SearchOptions

NAMED = 5  # clips in a message


def transcribe_folder(args: argparse.Namespace) -> int:
    """Transcribe the lists of a data folder; print the transcripts or write them, and report the clips
    without one."""
    if args.cluster == "local":
        device_of(args.device)  # without a GPU, --device cuda is an error at once
    elif args.out is None:
        raise DataError("--cluster slurm needs --out, a folder that all machines can write to")
    if args.out is not None:
        for plan in _plans(args, args.out.absolute()):
            made = _transcribe(plan, args)
            print(f"{plan.transcripts}: {_numbers(made)}")
            why = f"; {plan.bad_clips} lists the reasons. After fixing them, delete it and {plan.transcripts}"
            _left_out(plan, made, why)
        return 0
    with _kept_if_stopped() as folder:
        for plan in _plans(args, folder):
            made = _transcribe(plan, args)
            sys.stdout.writelines(map(hypothesis_row, made.hypotheses))
            print(f"{plan.manifest}: {_numbers(made)}", file=sys.stderr)
            _left_out(plan, made)
    return 0


@contextlib.contextmanager
def _kept_if_stopped() -> Iterator[Path]:
    """A folder for transcripts that are to be printed; it stays if not all of them are made."""
    folder = Path(tempfile.mkdtemp(prefix="av-ssl-transcribe-"))
    try:
        yield folder
    except BaseException:
        if any(path.suffix in (".tsv", ".log") for path in folder.rglob("*")):
            print(f"{folder} holds what was made; --out {folder} continues it", file=sys.stderr)
        else:
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _plans(args: argparse.Namespace, out: Path) -> list[TranscriptPlan]:
    data = args.recordings[0].absolute()
    subsets = args.subset or [split for split in SPLITS if lists_clips(data / f"{split}.tsv")]
    if not subsets:
        raise DataError(
            f"{data}: has no clips in {', '.join(f'{split}.tsv' for split in SPLITS)}; name --subset, or "
            "make the lists with preprocess/folder.sh or av-ssl data manifest"
        )
    longest = args.max_frames or args.max_tokens
    if longest > args.max_tokens:
        raise DataError(
            f"--max-frames is {longest}, but a batch holds --max-tokens {args.max_tokens} frames; raise it"
        )
    search = SearchOptions(args.beam, args.lenpen, args.max_len_a, args.max_len_b)
    options = tuple(args.task_option)
    checkpoint = args.checkpoint.absolute()
    spec = RecogniserSpec(checkpoint, args.modalities, args.device, search, options, args.precision)
    lengths = Lengths(args.min_frames, longest, args.max_tokens)
    return [TranscriptPlan(data, subset, out, spec, lengths) for subset in dict.fromkeys(subsets)]


def _transcribe(plan: TranscriptPlan, args: argparse.Namespace) -> Transcripts:
    threads = None
    if args.cluster == "slurm":
        threads = args.slurm_cpus
    elif args.workers > 1:
        threads = max(1, available_cores() // args.workers)
    return transcribe(plan, job_options(args), threads)


def _numbers(made: Transcripts) -> str:
    found = made.hypotheses
    hours = sum(hypothesis.frames for hypothesis in found) / FRAME_RATE / 3600
    empty = sum(not hypothesis.words for hypothesis in found)
    mean = sum(hypothesis.confidence for hypothesis in found) / max(1, len(found))
    return f"{len(found)} clips, {hours:.2f} hours; {empty} without words; mean confidence {mean:.3f}"


def _left_out(plan: TranscriptPlan, made: Transcripts, why: str = "") -> None:
    lengths = plan.lengths
    for names, reason in (
        (made.unreadable, f"cannot be read{why}"),
        (made.too_short, f"have fewer than {lengths.shortest} frames (--min-frames)"),
        (made.too_long, f"have more than {lengths.longest} frames (--max-frames, --max-tokens)"),
    ):
        if names:
            more = ", ..." if len(names) > NAMED else ""
            print(
                f"  {len(names)} clips are left out: {', '.join(names[:NAMED])}{more}: they {reason}",
                file=sys.stderr,
            )
