"""`av-ssl transcribe CHECKPOINT DATA`: transcripts of clips, with confidences.

av-ssl transcribe vsr.pt DATA                                 # print them
av-ssl transcribe asr.pt DATA --subset train --out HYPOTHESES # keep them, for av-ssl data pseudo-labels
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from av_ssl.cli.arguments import add_cluster_arguments, available_cores, cluster_options, positive
from av_ssl.errors import DataError
from av_ssl.layout import FRAME_RATE, SPLITS, lists_clips
from av_ssl.targets.feature_shards import device_of
from av_ssl.transcription.hypotheses import hypothesis_row
from av_ssl.transcription.recogniser import RecogniserSpec, SearchOptions
from av_ssl.transcription.transcribe import Lengths, TranscriptPlan, Transcripts, transcribe

NAMED = 5  # clips in a message


def add_transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a fine-tuned recogniser")
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {subset}.tsv")
    parser.add_argument(
        "--subset",
        nargs="+",
        metavar="NAME",
        help="(default: those of train, valid and test that list clips)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="for {subset}.hyp.tsv (default: print the transcripts)"
    )
    parser.add_argument(
        "--modalities", choices=("audio", "video", "av"), help="(default: those that it was trained with)"
    )
    parser.add_argument(
        "--max-tokens", metavar="N", type=positive, default=2000, help="frames of a batch (default: 2000)"
    )
    parser.add_argument("--min-frames", metavar="N", type=positive, default=5, help="of a clip (default: 5)")
    parser.add_argument(
        "--max-frames", metavar="N", type=positive, help="of a clip, 25 a second (default: --max-tokens)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if there is one)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        default=1,
        help="processes, which take turns on the GPUs, or jobs at a time on a cluster (default: 1)",
    )
    _add_search_arguments(parser)
    add_cluster_arguments(parser)


def _add_search_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = SearchOptions()
    group = parser.add_argument_group("search", "as in fairseq-generate")
    group.add_argument("--beam", type=positive, default=defaults.beam, help=f"(default: {defaults.beam})")
    group.add_argument(
        "--lenpen", type=float, default=defaults.lenpen, help="above 1 favours longer hypotheses (default: 1)"
    )
    group.add_argument(
        "--max-len-a",
        type=float,
        default=defaults.max_len_a,
        help="at most A x frames + B tokens (default: 1)",
    )
    group.add_argument("--max-len-b", type=int, default=defaults.max_len_b, help="(default: 10)")
    group.add_argument(
        "--task-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another key of the task av_recognition, as in fairseq-generate; may be repeated",
    )


def run_transcribe(args: argparse.Namespace) -> int:
    """Transcribe; print the transcripts or write them, and report which clips have none."""
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
    with tempfile.TemporaryDirectory(prefix="av-ssl-transcribe-") as folder:
        for plan in _plans(args, Path(folder)):
            made = _transcribe(plan, args)
            sys.stdout.writelines(map(hypothesis_row, made.hypotheses))
            print(f"{plan.manifest}: {_numbers(made)}", file=sys.stderr)
            _left_out(plan, made)
    return 0


def _plans(args: argparse.Namespace, out: Path) -> list[TranscriptPlan]:
    data = args.data.absolute()
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
    spec = RecogniserSpec(args.checkpoint.absolute(), args.modalities, args.device, search, options)
    lengths = Lengths(args.min_frames, longest, args.max_tokens)
    return [TranscriptPlan(data, subset, out, spec, lengths) for subset in dict.fromkeys(subsets)]


def _transcribe(plan: TranscriptPlan, args: argparse.Namespace) -> Transcripts:
    threads = None
    if args.cluster == "slurm":
        threads = args.slurm_cpus
    elif args.workers > 1:
        threads = max(1, available_cores() // args.workers)
    return transcribe(plan, cluster_options(args), threads)


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
