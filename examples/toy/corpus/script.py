"""What is said, by whom and with which emotion.

No voice variant of espeak-ng is in two splits. No emotion shows in one sign alone, and what a speaker brings
along (pitch, rate, the shape of brows and lips) covers part of each: the voice says some of it, the face says
more, and noise hides the voice.

In a linked corpus the face tells more about the voice: `Traits`, and blends of emotions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

# Sentences of five words from a grammar of 24, after the GRID corpus (Cooke et al., 2006).
SLOTS = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    ("one", "two", "three", "four", "five", "six", "nine", "zero"),
    ("again", "now", "please", "soon"),
)
SPLITS = ("pretrain", "valid", "test")
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp")  # "en" is British
# A variant makes espeak-ng sound like another person (vocal tract, breath, tremor); an accent changes vowels.
_TRAINING = "f1 m1 Annie m2 f2 Denis m3 belinda Gene f3 m4 Hugo aunty m5 Jacky Lee Alex Michael Mike adam"
VARIANTS = {
    "pretrain": ("", *(f"+{name}" for name in _TRAINING.split()), "+travis", "+victor"),
    "valid": ("+f5", "+m6", "+steph", "+edward"),
    "test": ("+f4", "+m7", "+linda", "+Andy", "+Mario"),
}
_STRENGTH = (0.5, 1.1)  # of emotions
_BLEND = 0.3  # largest strength of the other emotions of a blend
_PITCH, _RATE = (25, 75), (125, 175)  # of speakers


def sentence(rng: np.random.Generator) -> list[str]:
    """Draw one word a slot, for example `["bin", "blue", "at", "two", "now"]`."""
    return [slot[int(rng.integers(len(slot)))] for slot in SLOTS]


@dataclass(frozen=True)
class Voice:
    """What espeak-ng needs to know about a speaker."""

    name: str  # accent and variant, for example "en-us+f2"
    words_per_minute: int
    pitch: int  # 0 to 100, espeak-ng's scale
    pitch_range: int  # 0 (monotone) to 100
    tilt: float = 0.0  # -1 (dark) to 1 (bright), of the spectrum


class Traits(NamedTuple):
    """What the look of a speaker shows of the voice, each from -1 to 1."""

    size: float  # of the face: small for a high pitch
    length: float  # against its width: long for slow speech
    age: float  # darkness of the skin: a dark timbre

    @classmethod
    def of(cls, voice: Voice) -> "Traits":
        pitch, rate = (
            2 * (value - low) / (high - low) - 1
            for value, (low, high) in ((voice.pitch, _PITCH), (voice.words_per_minute, _RATE))
        )
        return cls(-pitch, -rate, -voice.tilt)


def draw_voice(split: str, number: int, rng: np.random.Generator) -> Voice:
    """The voice of the `number`-th speaker of a split; variants are used in turn, the rest is drawn."""
    variants = VARIANTS[split]
    return Voice(
        name=ACCENTS[int(rng.integers(len(ACCENTS)))] + variants[number % len(variants)],
        words_per_minute=int(rng.integers(_RATE[0], _RATE[1] + 1)),
        pitch=int(rng.integers(_PITCH[0], _PITCH[1] + 1)),
        pitch_range=int(rng.integers(30, 81)),
    )


@dataclass(frozen=True)
class Expression:
    """How a face differs from rest, in eye distances upwards; 0 throughout is rest."""

    brows: float = 0.0
    inner_brows: float = 0.0  # in addition to `brows`, nothing at the outer ends
    corners: float = 0.0  # of the mouth


@dataclass(frozen=True)
class Emotion:
    """An emotion at full strength; 0 (factors: 1) changes nothing."""

    name: str
    pitch: float = 0.0  # on espeak-ng's scale of 0 to 100
    pitch_range: float = 1.0  # factor
    rate: float = 1.0  # factor
    loudness: float = 1.0  # factor
    expression: Expression = Expression()

    def at(self, strength: float) -> "Emotion":
        """A weaker or stronger one."""
        face = self.expression
        return Emotion(
            self.name,
            self.pitch * strength,
            float(self.pitch_range**strength),
            float(self.rate**strength),
            float(self.loudness**strength),
            Expression(face.brows * strength, face.inner_brows * strength, face.corners * strength),
        )

    def voice(self, voice: Voice) -> Voice:
        """The voice of somebody who has it."""
        return replace(
            voice,
            words_per_minute=round(voice.words_per_minute * self.rate),
            pitch=int(np.clip(round(voice.pitch + self.pitch), 0, 99)),
            pitch_range=int(np.clip(round(voice.pitch_range * self.pitch_range), 0, 99)),
        )


NEUTRAL = Emotion("neutral")
EMOTIONS = (
    NEUTRAL,
    Emotion("happy", 16, 1.4, 1.25, 1.2, Expression(0.03, 0.0, 0.11)),
    Emotion("sad", -16, 0.45, 0.72, 0.45, Expression(0.0, 0.09, -0.06)),
    Emotion("angry", -6, 1.3, 1.3, 2.2, Expression(-0.05, -0.06, -0.05)),
    Emotion("surprised", 35, 2.0, 0.9, 1.3, Expression(0.14, 0.02, 0.0)),
)


def draw_emotion(number: int, rng: np.random.Generator) -> Emotion:
    """The emotion of a speaker's `number`-th clip: all in turn, each with a strength that is drawn."""
    return EMOTIONS[number % len(EMOTIONS)].at(rng.uniform(*_STRENGTH))


def draw_blend(number: int, rng: np.random.Generator) -> Emotion:
    """As `draw_emotion`, with a little of every other emotion: a latent of as many dimensions as emotions."""
    strengths = rng.uniform(0, _BLEND, len(EMOTIONS))
    main = number % len(EMOTIONS)
    strengths[main] = rng.uniform(*_STRENGTH)
    return blend(
        EMOTIONS[main].name, [one.at(strength) for one, strength in zip(EMOTIONS, strengths, strict=True)]
    )


def blend(name: str, parts: Sequence[Emotion]) -> Emotion:
    """All of them at once: differences add up, factors multiply."""
    faces = [part.expression for part in parts]
    return Emotion(
        name,
        sum(part.pitch for part in parts),
        math.prod(part.pitch_range for part in parts),
        math.prod(part.rate for part in parts),
        math.prod(part.loudness for part in parts),
        Expression(
            sum(face.brows for face in faces),
            sum(face.inner_brows for face in faces),
            sum(face.corners for face in faces),
        ),
    )
