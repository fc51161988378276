"""`av-ssl pieces DATA TEXT OUT`: a text in the pieces of a data folder's tokenizer, for a language model.

Lines go the way of transcripts (lower case, sentencepiece, `av_ssl.data.text`), so that a language model sees
the symbols that a recogniser puts out.  `fairseq-preprocess --only-source --srcdict DATA/dict.wrd.txt` reads
the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.cli.arguments import DICTIONARY, MODEL
from av_ssl.errors import DataError
from av_ssl.io import atomic_file

TOLERATED_UNKNOWN = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA", type=Path, help=f"folder with {MODEL} and {DICTIONARY}")
    parser.add_argument("text", metavar="TEXT", type=Path, help="UTF-8 text, a sentence a line")
    parser.add_argument("out", metavar="OUT", type=Path, help="file for the pieces, a sentence a line")
    parser.add_argument("--tokenizer", type=Path, help=f"sentencepiece model (default: DATA/{MODEL})")


def run(args: argparse.Namespace) -> int:
    """Convert line by line; texts larger than memory are fine."""
    from av_ssl.data.text import TextEncoder

    encoder = TextEncoder.load(args.data / DICTIONARY, args.tokenizer or args.data / MODEL)
    known = encoder.dictionary.indices
    sentences = symbols = unknown = 0
    try:
        with open(args.text, encoding="utf-8") as text, atomic_file(args.out) as out:
            for line in text:
                pieces = encoder.encode(line.strip()).split()
                if pieces:
                    out.write((" ".join(pieces) + "\n").encode())
                    sentences, symbols = sentences + 1, symbols + len(pieces)
                    unknown += sum(piece not in known for piece in pieces)
            check(args.text, symbols, unknown)
    except OSError as error:
        raise DataError(f"{args.text}: the text cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{args.text}: is not UTF-8 (byte {error.start}); convert it with iconv") from error
    print(f"{args.out}: {sentences} sentences, {symbols} pieces, {unknown / symbols:.2%} of them unknown")
    return 0


def check(text: Path, symbols: int, unknown: int) -> None:
    """Raise DataError for a text without words, or one that the tokenizer cannot write."""
    if not symbols:
        raise DataError(f"{text}: holds no words")
    if unknown > TOLERATED_UNKNOWN * symbols:
        raise DataError(
            f"{text}: {unknown / symbols:.0%} of its pieces are not in the dictionary; take out digits and "
            "symbols that transcripts do not have, or write them as words"
        )
