"""`av-ssl align MODEL RECORDING TEXT`: times of the words of a known text.

av-ssl align asr.pt talk.mp4 "place green at b four now"       # print them as JSON
av-ssl align asr.pt talk.mp4 talk.txt --format srt --out TIMES # write TIMES/talk.srt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import read_text
from av_ssl.model import Model
from av_ssl.transcription.forced_alignment import align_recording
from av_ssl.transcription.formats import FORMATS, write_transcript

NAME_LENGTH = 255
"""Characters that a file name has at most."""


def add_align_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="MODEL", type=Path, help="a recogniser with a CTC head")
    parser.add_argument("recording", metavar="RECORDING", type=Path, help="a video or audio file")
    parser.add_argument(
        "text", metavar="TEXT", help="all that is said, or a UTF-8 file with it; a line becomes a segment"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="for RECORDING's name with a suffix (default: print)"
    )
    parser.add_argument(
        "--format", choices=(*FORMATS, "all"), default="json", help="all needs --out (default: json)"
    )
    parser.add_argument(
        "--modalities", choices=("audio", "video", "av"), help="(default: those that it was trained with)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: a GPU if there is one)"
    )


def run_align(args: argparse.Namespace) -> int:
    """Align; print the words or write them."""
    if args.format == "all" and args.out is None:
        raise DataError("--format all needs --out")
    model = Model(args.checkpoint, args.device)
    transcript = align_recording(model.recogniser(args.modalities), args.recording, known_text(args.text))
    if args.out is None:
        sys.stdout.write(FORMATS[args.format](transcript))
        return 0
    formats = tuple(FORMATS) if args.format == "all" else (args.format,)
    for file in write_transcript(transcript, args.out / args.recording.stem, formats):
        print(file)
    return 0


def known_text(text: str) -> str:
    """The content of the file that an argument names, or else the argument."""
    path = Path(text)
    named = len(text.encode()) <= NAME_LENGTH and len(text.splitlines()) == 1
    if named and (path.suffix == ".txt" or path.is_file()):
        return read_text(path, "name a text in UTF-8, or write the words themselves")
    return text
