"""Dictionaries with given symbols."""

from collections.abc import Iterable

from fairseq.data import Dictionary


def dictionary_of(symbols: Iterable[object]) -> Dictionary:
    """Ids: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then those of the symbols."""
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(str(symbol))
    return dictionary
