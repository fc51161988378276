"""One clip: a sentence, its sound and its pictures, all of which follow from the settings and its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corpus.camera import light
from corpus.emotion import Emotion, draw_emotion
from corpus.face import LipTruth, TalkingFace
from corpus.grammar import sentence
from corpus.look import draw_look
from corpus.motion import head_motion
from corpus.photographs import Portrait
from corpus.speech import Synthesiser, Timed, Utterance
from corpus.visemes import viseme_track
from corpus.voices import SPLITS, Voice, draw_voice

FRAME_RATE = 25  # Hz
HELD_OUT_SHARE = 5  # one valid and one test speaker for so many training speakers

SILENCE = (0.04, 0.16)  # s, before the first word and after the last
_SPEAKER, _CLIP, _EMOTION = 0, 1, 2  # keep the random numbers of speakers, clips and emotions apart


@dataclass(frozen=True)
class Settings:
    """What a clip depends on besides its split and number.

    `speakers` counts the training speakers, `difficulty` is that of `corpus.visemes`, `frame_size` in pixels.
    With `emotions` clips say and show one each (`corpus.emotion`).
    """

    seed: int = 0
    speakers: int = 40
    difficulty: float = 0.4
    frame_size: int = 160
    emotions: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give a number from 0")
        if self.speakers < 1:
            raise ValueError(f"speakers is {self.speakers}: give at least 1")
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty is {self.difficulty}: give a number from 0 to 1")
        if self.frame_size % 4 or not 96 <= self.frame_size <= 512:
            raise ValueError(f"frame size is {self.frame_size}: give a multiple of 4 from 96 to 512 pixels")

    def speakers_in(self, split: str) -> int:
        return self.speakers if split == SPLITS[0] else max(1, self.speakers // HELD_OUT_SHARE)


@dataclass(frozen=True)
class Slot:
    """A place in the corpus: the `number`-th clip of a split, said by one of its `speakers`."""

    split: str
    number: int
    speakers: int

    @property
    def speaker(self) -> int:
        return self.number % self.speakers

    @property
    def speaker_name(self) -> str:
        return f"{self.split[0]}{self.speaker:03d}"

    @property
    def name(self) -> str:
        """Path below the corpus without suffix, e.g. `pretrain/p003/00043`."""
        return f"{self.split}/{self.speaker_name}/{self.number:05d}"


@dataclass(frozen=True)
class Clip:
    """A clip: `frames` uint8 RGB `[T, S, S, 3]` at 25 Hz, `wave` int16 `[T * rate / 25]` at `rate` Hz."""

    slot: Slot
    frames: NDArray[np.uint8]
    wave: NDArray[np.int16]
    rate: int
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]
    track: NDArray[np.float64]  # [T, 7], columns `corpus.visemes.DIMENSIONS`
    lips: LipTruth
    voice: Voice
    photograph: str
    emotion: str = ""  # where the corpus has emotions


class Studio:
    """Makes clips. One a process, as it holds the speech synthesiser."""

    def __init__(self, settings: Settings, portraits: Sequence[Portrait]) -> None:
        self._settings, self._portraits = settings, portraits
        self._synthesiser = Synthesiser()
        self._speaker = lru_cache(maxsize=64)(self._draw_speaker)

    def record(self, slot: Slot) -> Clip:
        """Make one clip; raises `SpeechError` where espeak-ng does not comply."""
        rng = self._generator(_CLIP, slot.split, slot.number)
        face, voice, photograph = self._speaker(slot.split, slot.speaker)
        words_to_say, voice_today = sentence(rng), _vary(voice, rng)
        emotion = self._emotion(slot)
        if emotion is not None:
            voice_today = emotion.voice(voice_today)
        utterance = self._synthesiser.say(words_to_say, voice_today, int(rng.integers(2**31)))
        before, after = rng.uniform(*SILENCE, 2)
        wave, frames = _on_air(utterance, before, after, rng, 1.0 if emotion is None else emotion.loudness)
        words = tuple(word.later(before) for word in utterance.words)
        phones = tuple(phone.later(before) for phone in utterance.phones)
        track = viseme_track(phones, frames, FRAME_RATE, rng, self._settings.difficulty)
        head = head_motion(frames, FRAME_RATE, self._settings.frame_size, rng)
        expression = None if emotion is None else emotion.expression
        pictures = face.render(track, head, light(frames, rng), rng, expression)
        lips = face.lip_truth(track, head, expression)
        name = "" if emotion is None else emotion.name
        return Clip(slot, pictures, wave, utterance.rate, words, phones, track, lips, voice, photograph, name)

    def _emotion(self, slot: Slot) -> Emotion | None:
        """Drawn apart, so that sentences and faces are those of the corpus without emotions."""
        if not self._settings.emotions:
            return None
        rng = self._generator(_EMOTION, slot.split, slot.number)
        return draw_emotion(slot.number // slot.speakers, rng)

    def _draw_speaker(self, split: str, number: int) -> tuple[TalkingFace, Voice, str]:
        rng = self._generator(_SPEAKER, split, number)
        voice = draw_voice(split, number, rng)
        # Photographs in turn; whether mirrored is drawn.
        photographs = len(self._portraits) // 2
        portrait = self._portraits[2 * (number % photographs) + int(rng.integers(2))]
        face = TalkingFace(draw_look(portrait, rng), self._settings.frame_size, self._settings.emotions)
        return face, voice, portrait.name

    def _generator(self, kind: int, split: str, number: int) -> np.random.Generator:
        return np.random.default_rng((self._settings.seed, kind, SPLITS.index(split), number))


def _vary(voice: Voice, rng: np.random.Generator) -> Voice:
    """The same person on another day: up to 7 % faster or slower, a little higher or lower."""
    speed = round(voice.words_per_minute * rng.uniform(0.93, 1.07))
    return Voice(voice.name, speed, voice.pitch + int(rng.integers(-5, 6)), voice.pitch_range)


def _on_air(
    utterance: Utterance, before: float, after: float, rng: np.random.Generator, loudness: float = 1.0
) -> tuple[NDArray[np.int16], int]:
    """The utterance at some loudness, between seconds of silence, over a faint hiss; and how many frames."""
    start = round(before * utterance.rate)
    # espeak-ng ends a sentence with a long pause of its own.
    frames = int(np.ceil((before + utterance.words[-1].end + after) * FRAME_RATE))
    wave = 30.0 * rng.standard_normal(frames * utterance.rate // FRAME_RATE)
    spoken = utterance.wave[: len(wave) - start]
    wave[start : start + len(spoken)] += spoken * (rng.uniform(0.5, 1) * loudness)
    return np.clip(np.round(wave), -32768, 32767).astype(np.int16), frames
