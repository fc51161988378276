"""``av-ssl data``: the lists, vocabulary and checks of a data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import (
    add_corpus_arguments,
    available_cores,
    chosen_clips,
    positive,
    share_or_number,
)
from av_ssl.corpora import CORPORA
from av_ssl.corpora.corpus import Draw, capped, read_ids, require_known
from av_ssl.corpora.lists import Lists, write_data_folder
from av_ssl.corpora.vocabulary import write_vocabulary
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar
from av_ssl.layout import DICTIONARY, TOKENIZER

# Checks and tokenization import torch, which lists and vocabulary do without: each imports its own.


def add_manifest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help="the folder that av-ssl crop was given")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder that av-ssl crop has filled")
    add_corpus_arguments(parser)
    drawn = "below 1 a share, else a number of clips (of speakers, for corpora divided by speaker)"
    parser.add_argument(
        "--valid",
        type=share_or_number,
        metavar="N",
        help=f"validation clips: {drawn}; folder: 0.05, lrs3: 1200",
    )
    parser.add_argument("--test", type=share_or_number, metavar="N", help="likewise for test clips")
    parser.add_argument(
        "--valid-ids",
        type=Path,
        metavar="FILE",
        help="validation clips: those that FILE lists, one id a line",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--labelled",
        type=positive,
        metavar="N",
        help="also write OUT/labelled_N, whose training list is N transcribed clips",
    )
    parser.add_argument(
        "--fold",
        metavar="NAME",
        action="append",
        default=[],
        help="also write OUT/fold_NAME, a published division by speaker: ravdess p6-1 to p6-6, p5-1 to p5-5, "
        "p1; crema_d p5-1 to p5-5; iemocap session-1 to session-5; may be repeated",
    )


def run_manifest(args: argparse.Namespace) -> int:
    """Write the lists and print what is in them."""
    corpus, clips = CORPORA[args.corpus], chosen_clips(args)
    unknown = [name for name in args.fold if name not in corpus.folds]
    if unknown:
        names = ", ".join(corpus.folds) or "none"
        raise DataError(f"--fold {unknown[0]}: {corpus.title} has {names}")
    valid_ids = None
    if args.valid_ids is not None:
        valid_ids = read_ids(args.valid_ids, corpus)
        require_known(args.valid_ids, valid_ids, clips)
    draw = capped(corpus.draw, clips)
    valid = draw.valid if args.valid is None else args.valid
    test = draw.test if args.test is None else args.test
    lists = Lists(
        Draw(valid, test, draw.by_speaker),
        args.seed,
        valid_ids,
        args.labelled,
        {name: corpus.folds[name] for name in args.fold},
    )
    print("\n".join(write_data_folder(args.out, corpus, clips, lists)))
    return 0


def add_vocabulary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder with train.wrd (or labelled_N/train.wrd)"
    )
    parser.add_argument(
        "--size", type=positive, default=1000, help="pieces, the four special ones included (default: 1000)"
    )
    parser.add_argument(
        "--type",
        choices=("unigram", "word"),
        default="unigram",
        help="pieces of words; or every word of the text whatever --size says, for a closed vocabulary "
        "such as GRID's (default: unigram)",
    )


def run_vocabulary(args: argparse.Namespace) -> int:
    """Train the tokenizer and print its size."""
    pieces, text = write_vocabulary(args.out, args.size, args.type)
    print(f"{args.out / TOKENIZER}: {pieces} pieces from {text}")
    if args.type == "unigram" and pieces < args.size:
        print(f"  {args.size} were requested, but the text supports only {pieces}")
    return 0


def add_pieces_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help=f"folder with {TOKENIZER} and {DICTIONARY}")
    parser.add_argument("text", metavar="TEXT", type=Path, help="UTF-8 text, a sentence a line")
    parser.add_argument("out", metavar="OUT", type=Path, help="file for the pieces, a sentence a line")
    parser.add_argument("--tokenizer", type=Path, help=f"sentencepiece model (default: DATA/{TOKENIZER})")


def run_pieces(args: argparse.Namespace) -> int:
    """Tokenize a text and print how much of it the dictionary covers."""
    from av_ssl.data.text import TextEncoder, tokenize_file

    encoder = TextEncoder.load(args.data / DICTIONARY, args.tokenizer or args.data / TOKENIZER)
    count = tokenize_file(encoder, args.text, args.out)
    unknown = f"{count.unknown / count.pieces:.2%} of them unknown"
    print(f"{args.out}: {count.sentences} sentences, {count.pieces} pieces, {unknown}")
    return 0


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="the folder that task.data will name")
    parser.add_argument("--label-dir", type=Path, help="folder with labels and dictionaries (default: DATA)")
    parser.add_argument("--noise", type=Path, help="folder with noise lists (default: DATA/noise if there)")
    parser.add_argument(
        "--image-crop-size", type=positive, default=88, help="as task.image_crop_size (default: 88)"
    )
    parser.add_argument("--lists-only", action="store_true", help="open no video and no recording")
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )


def run_check(args: argparse.Namespace) -> int:
    """Print every problem and a summary; 0 when there is none."""
    from av_ssl.data.check import check_folder

    with ProgressBar("file") as bar:
        manifests, problems = check_folder(
            args.data,
            args.label_dir or args.data,
            args.noise,
            None if args.lists_only else args.image_crop_size,
            args.workers,
            bar.update,
        )
    for line in [*problems, *manifests]:
        print(line)
    number = {0: "no problem", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
    print(f"{args.data}: {number}")
    return 1 if problems else 0
