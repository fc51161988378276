"""Sentences of five words from a fixed grammar of 24, after the GRID corpus (Cooke et al., 2006)."""

from __future__ import annotations

import numpy as np

SLOTS: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    ("one", "two", "three", "four", "five", "six", "nine", "zero"),
    ("again", "now", "please", "soon"),
)

WORDS: tuple[str, ...] = tuple(word for slot in SLOTS for word in slot)


def sentence(rng: np.random.Generator) -> list[str]:
    """Draw one word a slot, e.g. `["bin", "blue", "at", "two", "now"]`."""
    return [slot[int(rng.integers(len(slot)))] for slot in SLOTS]
