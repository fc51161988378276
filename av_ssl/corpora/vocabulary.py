"""Tokenizer and dictionary of a data folder: a sentencepiece model of the training transcripts.

Settings are AV-HuBERT's (Shi et al., 2022): unigram, lower case, full character coverage, special pieces 0 to
3 in fairseq's order, so that model and dictionary have the same ids.
"""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

from av_ssl.errors import DataError
from av_ssl.io import read_text, write_atomically
from av_ssl.layout import DICTIONARY, PIECES, TOKENIZER, labelled_folders

SPECIAL = 4  # <s>, <pad>, </s>, <unk>


def write_vocabulary(out: Path, size: int, kind: str = "unigram") -> tuple[int, Path]:
    """Train the tokenizer; write it into ``out`` and every folder in it with a part of the training clips.

    Args:
        out: data folder with ``train.wrd``, or ``labelled_N/train.wrd``.
        size: pieces, the four special ones included.
        kind: ``unigram``; or ``word``: every word of the text, whatever ``size`` says.

    Returns:
        The number of pieces and the text that they were trained on.
    """
    folders = [out, *labelled_folders(out)]
    text = next((path / "train.wrd" for path in folders if (path / "train.wrd").is_file()), None)
    if text is None:
        raise DataError(
            f"{out / 'train.wrd'}: does not exist; give every training clip a transcript "
            "(ID.txt beside ID.mp4), or run av-ssl data manifest with --labelled N"
        )
    model = train_tokenizer(text, size, kind)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    table = "".join(f"{piece}\t{processor.get_score(index):g}\n" for index, piece in enumerate(pieces))
    dictionary = "".join(f"{piece} 1\n" for piece in pieces[SPECIAL:])
    for folder in folders:
        write_atomically(folder / TOKENIZER, model)
        write_atomically(folder / PIECES, table.encode())
        write_atomically(folder / DICTIONARY, dictionary.encode())
    return len(pieces), text


def train_tokenizer(path: Path, size: int, kind: str = "unigram") -> bytes:
    """A serialised sentencepiece model of a text with a transcript a line; the same text, the same bytes.

    Raises:
        DataError: the text has no words, or more different characters than ``size`` leaves room for.
    """
    lines = [
        line.lower() for line in read_text(path, "write the transcripts again").split("\n") if line.strip()
    ]
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
            # A small text supports fewer pieces, which the command reports.
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
            f"its {characters} different characters need --size {least} or more"
        ) from error
    return model.getvalue()
