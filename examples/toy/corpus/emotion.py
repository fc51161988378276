"""Emotions: how a speaker's voice and face change with them.

None is told by one sign alone, and what a speaker brings along (pitch, rate, the shape of brows and lips)
covers part of each: the voice says some of it, the face says more, and noise takes the voice away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from corpus.voices import Voice

_STRENGTH = (0.5, 1.1)


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

    def at(self, strength: float) -> Emotion:
        """A weaker or stronger one."""

        def scaled(factor: float) -> float:
            return float(factor**strength)

        face = self.expression
        return Emotion(
            self.name,
            self.pitch * strength,
            scaled(self.pitch_range),
            scaled(self.rate),
            scaled(self.loudness),
            Expression(face.brows * strength, face.inner_brows * strength, face.corners * strength),
        )

    def voice(self, voice: Voice) -> Voice:
        """How somebody sounds under it."""
        return replace(
            voice,
            words_per_minute=round(voice.words_per_minute * self.rate),
            pitch=int(np.clip(round(voice.pitch + self.pitch), 0, 99)),
            pitch_range=int(np.clip(round(voice.pitch_range * self.pitch_range), 0, 99)),
        )


EMOTIONS: tuple[Emotion, ...] = (
    Emotion("neutral"),
    Emotion("happy", 16, 1.4, 1.25, 1.2, Expression(0.03, 0.0, 0.11)),
    Emotion("sad", -16, 0.45, 0.72, 0.45, Expression(0.0, 0.09, -0.06)),
    Emotion("angry", -6, 1.3, 1.3, 2.2, Expression(-0.05, -0.06, -0.05)),
    Emotion("surprised", 35, 2.0, 0.9, 1.3, Expression(0.14, 0.02, 0.0)),
)


def draw_emotion(number: int, rng: np.random.Generator) -> Emotion:
    """The emotion of a speaker's `number`-th clip: all in turn, each time as strong as it happens to be."""
    return EMOTIONS[number % len(EMOTIONS)].at(rng.uniform(*_STRENGTH))
