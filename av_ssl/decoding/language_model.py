"""The language model of `fairseq-generate --lm-path`: whether its symbols are the recogniser's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from av_ssl.data.text import difference, load_dictionary
from av_ssl.errors import DataError

FILE = "dict.txt"
"""What fairseq 0.12.2 reads as the language model's dictionary, in the data folder of the command."""


def check_stored_dictionary(data: Path, dictionary: Any) -> None:
    """Compare the dictionary that fairseq will give to the language model with the recogniser's.

    fairseq's checkpoints of language models hold no dictionary; one of another order would load, and score
    nonsense.

    Raises:
        DataError: ``{data}/dict.txt`` is missing or has other symbols.
    """
    path = data / FILE
    if not path.exists():
        raise DataError(
            f"{path}: does not exist; fairseq-generate looks there for the dictionary of --lm-path: copy "
            f"{FILE} from the folder that the language model was trained on (fairseq-preprocess wrote it)"
        )
    check_dictionary(load_dictionary(path), dictionary, str(path))


def check_dictionary(language_model: Any, recogniser: Any, origin: str) -> None:
    """Raise DataError where the two dictionaries differ; ``origin`` names the language model's."""
    if language_model.symbols != recogniser.symbols:
        raise DataError(
            f"{origin}: the language model has another dictionary, "
            f"{difference(language_model.symbols, recogniser.symbols)}; train it on text in the recogniser's "
            "pieces (av-ssl pieces) with fairseq-preprocess --srcdict dict.wrd.txt"
        )
