"""`av-ssl transcribe MODEL RECORDING...`: the text of recordings, or of the clips of a data folder.

av-ssl transcribe vsr.pt talk.mp4                              # print the text
av-ssl transcribe avsr.pt VIDEOS --format all --out TEXTS      # subtitles and more of a folder of recordings
av-ssl transcribe asr.pt DATA --subset train --out HYPOTHESES  # of a data folder, for data pseudo-labels
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from av_ssl.cli.arguments import (
    add_face_argument,
    add_job_arguments,
    add_recogniser_arguments,
    amount,
    check_paths,
    not_negative,
    open_recogniser,
    positive,
)
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, check_writable
from av_ssl.layout import SPLITS
from av_ssl.media.alignment import OWN, load_mean_face
from av_ssl.media.sources import find_recordings
from av_ssl.transcription.formats import ALL, FORMATS, keep_own_files, write_transcript
from av_ssl.transcription.recording import RecordingOptions, transcribe_faces, transcribe_recording
from av_ssl.transcription.transcript import SearchOptions, SpeechRecogniser, Transcript

# What imports torch is imported where it is needed: a wrong path is then reported at once.


def add_transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    add_recogniser_arguments(parser)
    parser.add_argument(
        "recordings",
        metavar="RECORDING",
        type=Path,
        nargs="+",
        help="video, mouth crops, sound, a folder of them, or one data folder with {subset}.tsv",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="for the files (default: print the text)")
    _add_recording_arguments(parser)
    _add_search_arguments(parser)
    _add_data_folder_arguments(parser)
    add_job_arguments(parser)


def _add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recordings")
    group.add_argument("--format", choices=(*FORMATS, ALL), default="txt", help="(default: txt)")
    faces = group.add_mutually_exclusive_group()
    add_face_argument(faces)
    faces.add_argument("--all-faces", action="store_true", help="transcribe each face, by its number")
    group.add_argument(
        "--words", action="store_true", help="times and scores of words, for json, srt and vtt"
    )
    group.add_argument(
        "--mean-face", metavar="FILE", type=Path, help="AV-HuBERT's mean face (.npy), for its checkpoints"
    )


def _add_data_folder_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data folder")
    group.add_argument(
        "--subset", nargs="+", metavar="NAME", help="(default: those of train, valid and test that exist)"
    )
    group.add_argument(
        "--max-tokens", metavar="N", type=positive, default=2000, help="frames of a batch (default: 2000)"
    )
    group.add_argument("--min-frames", metavar="N", type=positive, default=5, help="of a clip (default: 5)")
    group.add_argument(
        "--max-frames", metavar="N", type=positive, help="of a clip, 25 a second (default: --max-tokens)"
    )
    group.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        default=1,
        help="processes, which take turns on the GPUs, or jobs at a time on a cluster (default: 1)",
    )


def _add_search_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = SearchOptions()
    group = parser.add_argument_group("search", "as in fairseq-generate")
    group.add_argument("--beam", type=positive, default=defaults.beam, help=f"(default: {defaults.beam})")
    group.add_argument(
        "--lenpen", type=float, default=defaults.lenpen, help="above 1 favours longer hypotheses (default: 1)"
    )
    group.add_argument(
        "--max-len-a",
        type=amount,
        default=defaults.max_len_a,
        help="at most A x frames + B tokens (default: 1)",
    )
    group.add_argument("--max-len-b", type=not_negative, default=defaults.max_len_b, help="(default: 10)")
    group.add_argument(
        "--task-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another key of the task av_recognition, as in fairseq-generate; may be repeated",
    )


def run_transcribe(args: argparse.Namespace) -> int:
    """Transcribe; 0 when every recording, or the data folder, was transcribed."""
    check_paths(args.checkpoint)
    folders = [path for path in args.recordings if args.subset or _is_data_folder(path)]
    if not folders:
        return _transcribe_recordings(args)
    if len(args.recordings) > 1:
        raise DataError(f"{folders[0]}: is a data folder; name it alone")
    refuse_options(args, _add_recording_arguments, f"for recordings, {folders[0]} is a data folder")
    from av_ssl.cli.transcribe_folder import transcribe_folder

    return transcribe_folder(args)


def refuse_options(
    args: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None], why: str
) -> None:
    """Raise DataError for options of ``add`` that have other values than their defaults."""
    group = argparse.ArgumentParser(add_help=False)
    add(group)
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(group.parse_args([])).items()
        if getattr(args, name) != value
    ]
    if given:
        raise DataError(f"{', '.join(given)}: {why}; omit them")


def _is_data_folder(path: Path) -> bool:
    return any(os.path.isfile(path / f"{split}.tsv") for split in SPLITS)  # False where it is unreadable


def _transcribe_recordings(args: argparse.Namespace) -> int:
    if args.cluster != "local" or args.workers > 1:
        raise DataError(
            "--cluster, --workers: recordings are transcribed in this process; only the clips of "
            "a data folder are shared among several"
        )
    refuse_options(args, _add_data_folder_arguments, "for data folders, which hold train.tsv and other lists")
    recordings, failed = _find(args)
    if args.out is None and (args.format == ALL or (args.format != "txt" and len(recordings) > 1)):
        raise DataError(f"--format {args.format}: needs --out, a folder for the files")
    if not recordings:
        return 1
    if args.out is not None:
        check_writable(args.out)
        for name, path in recordings.items():
            keep_own_files(path, args.out / name, _formats(args), args.all_faces)
    mean_face = OWN if args.mean_face is None else load_mean_face(args.mean_face)
    options = RecordingOptions(args.face, args.modalities, args.words, mean_face=mean_face)
    search = SearchOptions(args.beam, args.lenpen, args.max_len_a, args.max_len_b)
    recogniser = open_recogniser(args, search, tuple(args.task_option))
    for name, path in recordings.items():
        try:
            _write(args, name, path, _transcribe(args, recogniser, path, options), len(recordings) > 1)
        except DataError as error:
            _report(error)
            failed += 1
    return 1 if failed else 0


def _find(args: argparse.Namespace) -> tuple[dict[str, Path], int]:
    """The recordings by the name of their output, and how many paths there were that cannot be used."""
    found: dict[str, Path] = {}
    failed = 0
    for path in args.recordings:
        try:
            check_paths(path)
            named = find_recordings(path) if path.is_dir() else {path.stem: path}
        except DataError as error:
            _report(error)
            failed += 1
            continue
        named = named if args.out is not None else {str(one): one for one in named.values()}
        for name in named.keys() & found.keys():
            if named[name].absolute() != found[name].absolute():
                raise DataError(f"{named[name]}: its text would overwrite that of {found[name]}; rename one")
        found |= named
    return found, failed


def _transcribe(
    args: argparse.Namespace, recogniser: SpeechRecogniser, path: Path, options: RecordingOptions
) -> dict[int | None, Transcript]:
    with ProgressBar("s", path.name) as bar:

        def progress(done: float, total: float | None) -> None:
            bar.update(round(done), round(done if total is None else total))

        if not args.all_faces:
            return {None: transcribe_recording(recogniser, path, options, progress=progress)}
        return dict(transcribe_faces(recogniser, path, options, progress=progress).items())


def _write(
    args: argparse.Namespace, name: str, path: Path, transcripts: dict[int | None, Transcript], several: bool
) -> None:
    """Write the files of a recording, or print its text; notes go to stderr."""
    for face, transcript in transcripts.items():
        for note in transcript.notes:
            print(f"{path}: {note}", file=sys.stderr)
        if args.out is not None:
            stem = args.out / (name if face is None else f"{name}.face{face}")
            print(*write_transcript(transcript, stem, _formats(args)), sep="\n", flush=True)
            continue
        if several or face is not None:
            print(f"{path}{'' if face is None else f', face {face}'}:")
        print(FORMATS[args.format](transcript), end="", flush=True)


def _formats(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(FORMATS) if args.format == ALL else (args.format,)


def _report(error: DataError) -> None:
    print(f"av-ssl transcribe: error: {error}", file=sys.stderr)
