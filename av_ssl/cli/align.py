"""`av-ssl align MODEL RECORDING TEXT`: times of the words of a known text.

av-ssl align asr.pt talk.mp4 "place green at b four now"       # print them as JSON
av-ssl align asr.pt talk.mp4 talk.txt --format srt --out TIMES # write TIMES/talk.srt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from av_ssl.cli.arguments import add_face_argument, add_recogniser_arguments, check_paths, open_recogniser
from av_ssl.errors import DataError
from av_ssl.io import check_writable, read_text
from av_ssl.transcription.forced_alignment import align_recording
from av_ssl.transcription.formats import ALL, FORMATS, keep_own_files, write_transcript
from av_ssl.transcription.transcript import SearchOptions

NAME_LENGTH = 255
"""Characters that a file name has at most."""


def add_align_arguments(parser: argparse.ArgumentParser) -> None:
    add_recogniser_arguments(parser)
    parser.add_argument("recording", metavar="RECORDING", type=Path, help="video, mouth crops or sound")
    parser.add_argument(
        "text", metavar="TEXT", help="all that is said, or a UTF-8 file with it; a line becomes a segment"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="for the files (default: print the words)")
    parser.add_argument("--format", choices=(*FORMATS, ALL), default="json", help="(default: json)")
    add_face_argument(parser)


def run_align(args: argparse.Namespace) -> int:
    """Align; print the words or write them."""
    check_paths(args.checkpoint, args.recording)
    if args.format == ALL and args.out is None:
        raise DataError(f"--format {ALL}: needs --out, a folder for the files")
    text = known_text(args.text)
    formats = tuple(FORMATS) if args.format == ALL else (args.format,)
    if args.out is not None:
        check_writable(args.out)
        keep_own_files(args.recording, args.out / args.recording.stem, formats)
    recogniser = open_recogniser(args, SearchOptions())
    transcript = align_recording(recogniser, args.recording, text, args.modalities, args.face)
    if args.out is None:
        sys.stdout.write(FORMATS[args.format](transcript))
        return 0
    print(*write_transcript(transcript, args.out / args.recording.stem, formats), sep="\n")
    return 0


def known_text(text: str) -> str:
    """The content of the file that an argument names, or else the argument."""
    path = Path(text)
    named = len(text.encode()) <= NAME_LENGTH and len(text.splitlines()) == 1
    if named and (path.suffix == ".txt" or path.is_file()):
        return read_text(path, "name a text in UTF-8, or write the words themselves")
    return text
