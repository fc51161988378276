"""Phones with times -> the shape of the mouth in every frame.

Each phone asks for a viseme; neighbours blend in proportion to their dominance (after Cohen & Massaro, 1993),
so that lips close fully for a short /b/ while a /k/ takes the shape of the vowels around it.

`difficulty` is how far the mouth may stray from what was said. At 0 every phone has its textbook shape, and
lip-reading is easier than listening, which no real corpus shows; at 1 the words can hardly be read. It
scales, all at once: how much each phone is under-articulated, its shift in time, the blur of neighbours, a
smaller movement of the whole clip, and slow movements that mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpus.speech import Timed
from corpus.warp import Floats

RATE = 200  # Hz, of the track before it is sampled at frames
SMOOTHING = 0.035  # s, standard deviation of the blending window
LEAD = 0.02  # s by which the lips are ahead of the sound


class Viseme(NamedTuple):
    """The shape of the mouth; the defaults are a mouth at rest."""

    jaw: float = 0.0  # 0 shut, 1 wide open
    lift: float = 0.0  # of the upper lip
    width: float = 1.0  # of the mouth over its width at rest
    thickness: float = 1.0  # of the lips over that at rest
    teeth: float = 0.0  # 0 hidden, 1 shown
    tongue: float = 0.0  # 0 down, 1 at the upper teeth
    tuck: float = 0.0  # of the lower lip under the upper teeth


DIMENSIONS = Viseme._fields
REST = np.array(Viseme())
LOWEST = np.array(Viseme(jaw=-0.2, lift=-0.2, width=0.45, thickness=0.4))
HIGHEST = np.array(Viseme(jaw=1.2, lift=0.6, width=1.3, thickness=1.6, teeth=1.0, tongue=1.0, tuck=1.0))

_HERE = Path(__file__).parent
# The shape of each viseme, and how much it imposes itself on its neighbours.
_ROWS = [line.split("\t") for line in (_HERE / "mouths.tsv").read_text().splitlines()[1:]]
VISEMES = {name: Viseme(*map(float, numbers)) for name, _, *numbers in _ROWS}
DOMINANCE = {name: float(dominance) for name, dominance, *_ in _ROWS}
PHONE_TABLE = _HERE / "visemes.tsv"
_LINES = [line.split("\t") for line in PHONE_TABLE.read_text().splitlines()]
# By phone: the visemes that it passes through; none for phones that the lips do not show.
PHONE_VISEMES = {
    phone: () if names == "-" else tuple(names.split())
    for names, phones in _LINES
    for phone in phones.split()
}
_MODIFIERS = "#[]^;-"  # espeak-ng's marks of dental, retroflex, palatal, ... variants of a phone


def visemes_of(phone: str) -> tuple[str, ...]:
    """The visemes that a phone of espeak-ng passes through; none for phones that the lips do not show.

    Raises `ValueError` for a phone that is not in the table.
    """
    plain = phone
    while plain not in PHONE_VISEMES:
        if not plain or plain[-1] not in _MODIFIERS:
            raise ValueError(f"espeak-ng's phone {phone!r} has no viseme: add it to {PHONE_TABLE}")
        plain = plain[:-1]
    return PHONE_VISEMES[plain]


def viseme_track(
    phones: Sequence[Timed], frames: int, frame_rate: float, rng: np.random.Generator, difficulty: float
) -> Floats:
    """The shape of the mouth at the middle of every frame: `[frames, 7]`, columns `DIMENSIONS`."""
    instants = round(frames / frame_rate * RATE) + 1
    targets, weights = _targets(phones, instants, rng, difficulty)
    track = _blend(targets, weights, SMOOTHING + 0.02 * difficulty)
    track = REST + (track - REST) * rng.uniform(1 - 0.5 * difficulty, 1)
    restlessness = np.array(Viseme(0.05, 0.04, 0.05, 0.06, 0.15, 0.08, 0.0))
    track += difficulty * restlessness * _slow_noise(instants, rng)
    middles = (np.arange(frames) + 0.5) / frame_rate
    times = np.arange(instants) / RATE
    sampled = np.stack([np.interp(middles, times, column) for column in track.T], axis=1)
    return np.clip(sampled, LOWEST, HIGHEST)


def _targets(
    phones: Sequence[Timed], instants: int, rng: np.random.Generator, difficulty: float
) -> tuple[Floats, Floats]:
    """What each instant asks for `[instants, 7]` and how strongly `[instants]`, before blending."""
    targets, weights = np.tile(REST, (instants, 1)), np.full(instants, DOMINANCE["rest"])
    for phone in phones:
        visemes = visemes_of(phone.label)
        shift = rng.normal(0, 0.02 * difficulty) - LEAD
        edges = np.linspace(phone.start, phone.end, len(visemes) + 1) + shift
        for name, begin, end in zip(visemes, edges[:-1], edges[1:], strict=True):
            first, last = max(0, round(begin * RATE)), max(0, round(end * RATE))
            here = slice(first, max(last, first + 1))
            targets[here] = _articulate(np.array(VISEMES[name]), rng, difficulty)
            weights[here] = DOMINANCE[name]
    return targets, weights


def _articulate(target: Floats, rng: np.random.Generator, difficulty: float) -> Floats:
    """A careless version of a viseme `[7]`: nearer to rest, and a little off."""
    carelessness = min(0.9, abs(rng.normal(0, 0.35 * difficulty)))
    spread = np.array(Viseme(1, 1, 1, 1, 2, 1, 0))
    error = rng.normal(0, 0.06 * difficulty, REST.size) * spread
    return np.asarray(target + (REST - target) * carelessness + error)


def _blend(targets: Floats, weights: Floats, deviation: float) -> Floats:
    """Weighted moving average with a Gaussian window of `deviation` seconds."""
    reach = int(3 * deviation * RATE)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (deviation * RATE)) ** 2)

    def average(x: Floats) -> Floats:
        return np.convolve(np.pad(x, reach, mode="edge"), window, "valid")

    weighted = np.stack([average(column * weights) for column in targets.T], axis=1)
    return np.asarray(weighted / average(weights)[:, None])


def _slow_noise(instants: int, rng: np.random.Generator) -> Floats:
    """Noise of unit variance and about 2 Hz, `[instants, 7]`."""
    window = np.hanning(RATE // 2 + 1)
    window /= np.sqrt((window**2).sum())
    white = rng.normal(size=(REST.size, instants + len(window) - 1))
    return np.stack([np.convolve(row, window, "valid") for row in white], axis=1)
