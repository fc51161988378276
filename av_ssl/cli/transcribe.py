"""`av-ssl transcribe CHECKPOINT DATA`: transcripts, with confidences, of clips that have none.

av-ssl transcribe vsr.pt DATA                                 # print them
av-ssl transcribe asr.pt DATA --subset train --out HYPOTHESES # keep them, for av-ssl pseudo-labels
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av_ssl.cli.arguments import add_cluster_arguments, available_cores, cluster_options, positive
from av_ssl.corpora.corpus import SPLITS
from av_ssl.errors import DataError
from av_ssl.inference import RecogniserSpec, SearchOptions
from av_ssl.io import ProgressBar
from av_ssl.layout import FRAME_RATE
from av_ssl.targets.feature_shards import device_of
from av_ssl.transcription.hypotheses import hypothesis_row
from av_ssl.transcription.transcribe import Lengths, Progress, TranscriptPlan, Transcripts, transcribe

NAMED = 5  # clips in a message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a fine-tuned recogniser")
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with {subset}.tsv")
    parser.add_argument(
        "--subset", nargs="+", metavar="NAME", help="(default: train, valid and test, where there is a list)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="for {subset}.hyp.tsv (default: print the transcripts)"
    )
    parser.add_argument(
        "--modalities", choices=("audio", "video", "av"), help="(default: those of the training)"
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
        help="processes that take the GPUs in turn, or jobs at a time on a cluster; each loads the model "
        "(default: 1)",
    )
    _add_search_arguments(parser)
    add_cluster_arguments(parser)


def _add_search_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = SearchOptions()
    group = parser.add_argument_group("how the words are looked for", "as by fairseq-generate")
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
        help="further key of the task av_recognition, as fairseq-generate takes it; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Transcribe, print or keep, say what was left out."""
    if args.cluster == "local":
        device_of(args.device)  # a GPU that is asked for and is not there: an error at once
    elif args.out is None:
        raise DataError("--cluster slurm needs --out: a folder that all machines see")
    if args.out is not None:
        for plan in _plans(args, args.out.absolute()):
            made = _transcribe(plan, args)
            print(f"{plan.transcripts}: {_numbers(made)}")
            mend = f"; {plan.bad_clips} says why. When they are mended, delete it and {plan.transcripts}"
            _left_out(plan, made, mend)
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
    subsets = args.subset or [split for split in SPLITS if (data / f"{split}.tsv").is_file()]
    if not subsets:
        raise DataError(
            f"{data}: holds no {', '.join(f'{split}.tsv' for split in SPLITS)}; name --subset, or make the "
            "lists with preprocess/folder.sh or av-ssl manifest"
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
    return transcribe(plan, cluster_options(args), _stage, threads)


@contextmanager
def _stage(text: str) -> Iterator[Progress]:
    print(text, file=sys.stderr, flush=True)
    with ProgressBar("shard") as bar:
        yield bar.update


def _numbers(made: Transcripts) -> str:
    found = made.hypotheses
    hours = sum(hypothesis.frames for hypothesis in found) / FRAME_RATE / 3600
    empty = sum(not hypothesis.words for hypothesis in found)
    mean = sum(hypothesis.confidence for hypothesis in found) / max(1, len(found))
    return f"{len(found)} clips, {hours:.2f} hours; {empty} without words; mean confidence {mean:.3f}"


def _left_out(plan: TranscriptPlan, made: Transcripts, mend: str = "") -> None:
    lengths = plan.lengths
    for names, reason in (
        (made.unreadable, f"cannot be read{mend}"),
        (made.too_short, f"have fewer than {lengths.shortest} frames (--min-frames)"),
        (made.too_long, f"have more than {lengths.longest} frames (--max-frames, --max-tokens)"),
    ):
        if names:
            more = ", ..." if len(names) > NAMED else ""
            print(
                f"  {len(names)} clips are left out: {', '.join(names[:NAMED])}{more}: they {reason}",
                file=sys.stderr,
            )
