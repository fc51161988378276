"""Who speaks: voices of espeak-ng, shared out so that no voice variant is heard in two splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLITS: tuple[str, ...] = ("pretrain", "valid", "test")

ACCENTS: tuple[str, ...] = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp")  # "en" is British

# A variant makes espeak-ng sound like somebody else (vocal tract, breath, tremor); an accent changes vowels.
VARIANTS: dict[str, tuple[str, ...]] = {
    "pretrain": (
        *("", "+f1", "+m1", "+Annie", "+m2", "+f2", "+Denis", "+m3", "+belinda", "+Gene", "+f3", "+m4"),
        *(
            "+Hugo",
            "+aunty",
            "+m5",
            "+Jacky",
            "+Lee",
            "+Alex",
            "+Michael",
            "+Mike",
            "+adam",
            "+travis",
            "+victor",
        ),
    ),
    "valid": ("+f5", "+m6", "+steph", "+edward"),
    "test": ("+f4", "+m7", "+linda", "+Andy", "+Mario"),
}


@dataclass(frozen=True)
class Voice:
    """What espeak-ng needs to know of a speaker."""

    name: str  # accent and variant, e.g. "en-us+f2"
    words_per_minute: int
    pitch: int  # 0 to 100, espeak-ng's scale
    pitch_range: int  # 0 (monotone) to 100


def draw_voice(split: str, number: int, rng: np.random.Generator) -> Voice:
    """The voice of the `number`-th speaker of a split; variants are used in turn, the rest is drawn."""
    variants = VARIANTS[split]
    return Voice(
        name=ACCENTS[int(rng.integers(len(ACCENTS)))] + variants[number % len(variants)],
        words_per_minute=int(rng.integers(125, 176)),
        pitch=int(rng.integers(25, 76)),
        pitch_range=int(rng.integers(30, 81)),
    )
