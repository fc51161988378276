"""Between transcripts and dictionary ids; dictionaries and tokenizer out of a checkpoint's task state.

Three writers left three forms of it: this package stores strings and a tensor; AV-HuBERT's published files
hold pickled ``dictionaries``, ``target_dictionary`` and ``s2s_tokenizer``; files without a task state have
none.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
import torch
from fairseq.data import Dictionary
from torch import Tensor

from av_ssl.errors import DataError
from av_ssl.io import atomic_file, composed, read_text, unicode_form
from av_ssl.layout import DICTIONARY

TOLERATED_UNKNOWN = 0.1
"""Share of the pieces of a text that the dictionary may lack."""


def load_dictionary(path: Path) -> Dictionary:
    """Read a fairseq dictionary: a symbol and a count a line; ids 0 to 3 are `<s> <pad> </s> <unk>`.

    Raises DataError when the file is missing, malformed or empty.
    """
    dictionary = Dictionary()
    fix = (
        "write one line '<symbol> 1' for each label, in the order of their ids, or check label_dir and labels"
    )
    if path.name == DICTIONARY and not path.exists():
        fix = "make it and the tokenizer from the transcripts: av-ssl data vocabulary"
    content = read_text(path, fix, "the dictionary cannot be read")
    try:
        dictionary.add_from_file(io.StringIO(content.rstrip()))
    except (RuntimeError, ValueError) as error:
        fault = _fault(content.rstrip().split("\n"), Dictionary().symbols) or f": {error}"
        raise DataError(f"{path}{fault}; needed are lines '<symbol> <count>', each symbol once") from error
    if len(dictionary) == dictionary.nspecial:
        raise DataError(f"{path}: holds no symbols; write one line '<symbol> 1' for each label")
    return dictionary


def _fault(lines: Sequence[str], specials: Sequence[str]) -> str:
    """What is wrong with the first wrong line of a dictionary, which fairseq does not number."""
    seen = dict.fromkeys(specials, "one of fairseq's own")
    for number, line in enumerate(lines, start=1):
        symbol, _, count = line.rstrip().rpartition(" ")
        if not symbol or not count.isdecimal():
            return f", line {number}: {line!r} has not a symbol, a space and a count"
        if symbol in seen:
            return f", line {number}: {symbol!r} is {seen[symbol]}"
        seen[symbol] = f"also on line {number}"
    return ""


class TextEncoder:
    """Dictionary and tokenizer; also the `bpe` with which fairseq joins pieces to words.

    Args:
        dictionary: symbols of the labels.
        tokenizer: a serialised sentencepiece model; None for transcripts that are space-separated symbols
            already.
        origin: names the files in errors.

    Raises DataError when the tokenizer makes pieces that the dictionary lacks.
    """

    def __init__(
        self, dictionary: Dictionary, tokenizer: bytes | None = None, origin: str = "the data"
    ) -> None:
        self.dictionary = dictionary
        self.origin = origin
        self._set_tokenizer(tokenizer)

    def _set_tokenizer(self, tokenizer: bytes | None) -> None:
        self.tokenizer = tokenizer
        self.processor = None
        # Dictionaries of separated accents (NFD) keep working: texts get the form of the symbols.
        self.form = unicode_form(self.dictionary.symbols)
        if tokenizer is not None:
            try:
                self.processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
            except RuntimeError as error:
                raise DataError(
                    f"{self.origin}: the tokenizer is no sentencepiece model ({error}); get the file again"
                ) from error
            self._check_pieces(self.processor)

    @classmethod
    def load(cls, dictionary: Path, tokenizer: Path | None) -> TextEncoder:
        symbols = load_dictionary(dictionary)
        origin = str(dictionary) if tokenizer is None else f"{dictionary} and {tokenizer}"
        try:
            return cls(symbols, None if tokenizer is None else tokenizer.read_bytes(), origin)
        except OSError as error:
            raise DataError(f"{tokenizer}: the tokenizer cannot be read ({error.strerror})") from error

    def _check_pieces(self, processor: Any) -> None:
        for id in range(processor.get_piece_size()):
            if processor.is_control(id) or processor.is_unknown(id) or processor.is_unused(id):
                continue
            piece = processor.id_to_piece(id)
            if piece not in self.dictionary:
                raise DataError(
                    f"{self.origin}: the dictionary lacks {piece!r}, piece {id} of the tokenizer; take "
                    "both from the same preparation, or write the dictionary from the tokenizer's pieces"
                )

    def encode(self, text: str) -> str:
        """Pieces of a transcript joined by spaces; lower-cased when there is a tokenizer.

        Accents are written as the dictionary has them, as one code point with their letter or apart.
        """
        text = unicodedata.normalize(self.form, text)
        if self.processor is None:
            return text
        return " ".join(self.processor.encode(text.lower(), out_type=str))

    def decode(self, pieces: str) -> str:
        if self.processor is None:
            return composed(pieces)
        return composed(self.processor.decode_pieces(pieces.split()))

    def ids(self, text: str) -> Tensor:
        """Dictionary ids int64 `[L]` of a transcript, the last one `</s>`."""
        ids = [self.dictionary.index(symbol) for symbol in self.encode(text).split()]
        return torch.tensor([*ids, self.dictionary.eos()], dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: strings and a tensor, so that reading it runs no code."""
        tokenizer = None
        if self.tokenizer is not None:
            tokenizer = torch.from_numpy(np.frombuffer(self.tokenizer, np.uint8).copy())
        return {"symbols": list(self.dictionary.symbols), "tokenizer": tokenizer}

    @property
    def is_empty(self) -> bool:
        """Whether there are no symbols yet: decoding can take them from the checkpoint, see `adopt`."""
        return len(self.dictionary) == self.dictionary.nspecial

    def adopt(self, state: dict[str, Any]) -> None:
        """Fill an empty encoder, whose dictionary others hold already, with what `state_dict` stored."""
        for symbol in state["symbols"][self.dictionary.nspecial :]:
            self.dictionary.add_symbol(symbol)
        tokenizer = state["tokenizer"]
        self._set_tokenizer(None if tokenizer is None else tokenizer.cpu().numpy().tobytes())

    def check_state(self, state: dict[str, Any]) -> None:
        """Compare with what `state_dict` stored in a checkpoint; raises DataError where they differ."""
        fix = "use the dictionary and the tokenizer that the model was trained with (label_dir, tokenizer)"
        stored, own = list(state["symbols"]), self.dictionary.symbols
        if stored != own:
            raise DataError(
                f"{self.origin}: the checkpoint has another dictionary, {difference(stored, own)}; {fix}"
            )
        tokenizer = state.get("tokenizer")
        if (None if tokenizer is None else tokenizer.cpu().numpy().tobytes()) != self.tokenizer:
            raise DataError(f"{self.origin}: the checkpoint was trained with another tokenizer; {fix}")


class TokenCount(NamedTuple):
    """Sentences and pieces of a text, and how many pieces the dictionary lacks."""

    sentences: int
    pieces: int
    unknown: int


def tokenize_file(encoder: TextEncoder, text: Path, out: Path) -> TokenCount:
    """Write a text in the pieces of a tokenizer, line by line, to train a language model on.

    Lines are processed as transcripts are, so that a language model gets the symbols that a recogniser
    outputs.  ``fairseq-preprocess --only-source --srcdict DATA/dict.wrd.txt`` reads the result.

    Args:
        encoder: of the recogniser's data.
        text: UTF-8, a sentence a line; may be larger than memory.
        out: the result; appears when it is complete.

    Raises DataError if the text cannot be read, has no words, or more than a tenth of its pieces are unknown.
    """
    known, sentences, symbols, unknown = encoder.dictionary.indices, 0, 0, 0
    try:
        with open(text, encoding="utf-8-sig") as lines, atomic_file(out) as file:
            for line in lines:
                pieces = encoder.encode(line.strip()).split()
                if pieces:
                    file.write((" ".join(pieces) + "\n").encode())
                    sentences, symbols = sentences + 1, symbols + len(pieces)
                    unknown += sum(piece not in known for piece in pieces)
            if not symbols:
                raise DataError(f"{text}: holds no words")
            if unknown > TOLERATED_UNKNOWN * symbols:
                raise DataError(
                    f"{text}: {unknown / symbols:.0%} of its pieces are not in the dictionary; remove digits "
                    "and symbols that transcripts do not have, or write them as words"
                )
    except OSError as error:
        raise DataError(f"{text}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{text}: is not UTF-8 (byte {error.start}); convert it with iconv") from error
    return TokenCount(sentences, symbols, unknown)


def difference(stored: list[str], own: list[str]) -> str:
    """In which way another dictionary's symbols are not our own."""
    if len(stored) != len(own):
        return f"of {len(stored)} symbols instead of {len(own)}"
    first = next(id for id, (a, b) in enumerate(zip(stored, own, strict=True)) if a != b)
    return f"where id {first} is {stored[first]!r}, not {own[first]!r}"


def text_state(task_state: Mapping[str, Any], origin: str) -> dict[str, Any] | None:
    """``symbols`` and ``tokenizer`` as ``TextEncoder.state_dict`` has them; None if nothing is stored.

    Raises DataError, which names ``origin``, if the stored objects are not what their names say.
    """
    if "symbols" in task_state:
        return {"symbols": list(task_state["symbols"]), "tokenizer": task_state.get("tokenizer")}
    dictionary = task_state.get("target_dictionary")
    if dictionary is None:
        return None
    state: dict[str, Any] = {"symbols": symbols_of(dictionary, origin), "tokenizer": None}
    tokenizer = task_state.get("s2s_tokenizer")
    if tokenizer is not None:
        model = getattr(getattr(tokenizer, "sp", None), "serialized_model_proto", None)
        if model is None:
            raise DataError(f"{origin}: its s2s_tokenizer holds no sentencepiece model; get the file again")
        state["tokenizer"] = torch.from_numpy(np.frombuffer(model(), np.uint8).copy())
    return state


def stored_label_sets(task_state: Mapping[str, Any], origin: str) -> list[list[str]]:
    """Symbols of each dictionary of cluster ids in a checkpoint's ``task_state``; errors name ``origin``."""
    if "label_symbols" in task_state:
        return [list(symbols) for symbols in task_state["label_symbols"]]
    return [symbols_of(one, origin) for one in task_state.get("dictionaries") or []]


def symbols_of(dictionary: Any, origin: str) -> list[str]:
    symbols = getattr(dictionary, "symbols", None)
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise DataError(
            f"{origin}: its task state holds a {type(dictionary).__name__} where a dictionary belongs; "
            "get the file again"
        )
    return list(symbols)


def dictionary_of(symbols: list[str], origin: str) -> Dictionary:
    """A fairseq dictionary of these symbols, ids in their order; the special four come first."""
    dictionary = Dictionary()
    if symbols[: dictionary.nspecial] != dictionary.symbols:
        raise DataError(
            f"{origin}: its dictionary begins with {symbols[: dictionary.nspecial]}, not "
            f"{dictionary.symbols}; it is not from fairseq"
        )
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    if len(dictionary) != len(symbols):
        raise DataError(f"{origin}: its dictionary names a symbol twice; get the file again")
    return dictionary
