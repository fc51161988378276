"""`av-ssl vocabulary OUT`: a sentencepiece model of the training transcripts, and its dictionary for fairseq.

Settings as AV-HuBERT's (Shi et al., 2022): unigram, lower case, full character coverage, special pieces 0 to
3 in fairseq's order, so that the ids of model and dictionary are the same.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import sentencepiece

from av_ssl.cli.arguments import DICTIONARY, MODEL, PIECES, labelled_folders, positive
from av_ssl.errors import DataError
from av_ssl.io import write_atomically

SPECIAL = 4  # <s>, <pad>, </s>, <unk>


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
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
        help="pieces of words, or every word of the text whatever --size says, for a closed vocabulary "
        "such as GRID's (default: unigram)",
    )


def run(args: argparse.Namespace) -> int:
    """Train the model; write it into OUT and every folder in it that holds a part of the training list."""
    subsets = labelled_folders(args.out)
    source = next((path for path in (args.out, *subsets) if (path / "train.wrd").is_file()), None)
    if source is None:
        raise DataError(
            f"{args.out / 'train.wrd'}: does not exist; give every training clip a transcript "
            "(ID.txt beside ID.mp4), or run av-ssl manifest with --labelled N"
        )
    model = train_tokenizer(source / "train.wrd", args.size, args.type)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    scores = [processor.get_score(index) for index in range(len(pieces))]
    table = "".join(f"{piece}\t{score:g}\n" for piece, score in zip(pieces, scores, strict=True))
    dictionary = "".join(f"{piece} 1\n" for piece in pieces[SPECIAL:])
    for folder in (args.out, *subsets):
        write_atomically(folder / MODEL, model)
        write_atomically(folder / PIECES, table.encode())
        write_atomically(folder / DICTIONARY, dictionary.encode())
    print(f"{args.out / MODEL}: {len(pieces)} pieces from {source / 'train.wrd'}")
    if args.type == "unigram" and len(pieces) < args.size:
        print(f"  {args.size} were asked for, but the text supports no more than {len(pieces)}")
    return 0


def train_tokenizer(path: Path, size: int, kind: str = "unigram") -> bytes:
    """Serialised unigram model of at most `size` pieces, or model of all words; a transcript a line.

    The same text gives the same bytes. Raises DataError when the text has no words or more different
    characters than `size` leaves room for.
    """
    lines = [line.lower() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no words")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=kind,
            use_all_vocab=kind == "word",
            vocab_size=size,
            character_coverage=1.0,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            # A small text supports fewer pieces; the user is told, instead of being refused.
            hard_vocab_limit=False,
            max_sentence_length=max(4192, *(len(line.encode()) + 1 for line in lines)),
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        characters = len(set("".join(lines).replace(" ", "")))
        least = characters + SPECIAL + 1  # the mark of a word's begin
        raise DataError(
            f"{path}: no sentencepiece model of {size} pieces can be made ({error}); "
            f"its {characters} different characters ask for --size {least} or more"
        ) from error
    return model.getvalue()
