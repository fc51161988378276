"""Which of several faces speaks, and the delay between lips and audio, from mouth opening and loudness.

The speaker is, among the faces tracked at least half as long as the longest, the one whose mouth opening
correlates best with the loudness of the audio, times its share of the longest. Where no mouth follows the
audio, it is the largest of the faces tracked at least 80 % as long. Both are our own estimates: lips also
move without speech, and open before a vowel is audible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.alignment import layout_of
from av_ssl.media.face_mesh import Floats
from av_ssl.media.tracking import Track

SMOOTHING = 5  # frames: syllables, not single frames
MAX_LEAD = 3  # frames by which a speaker's lips may move before or after the audio
# Standard deviation of the opening in eye distances; lips at rest have 0.002, GRID speakers 0.014 and more.
RESTING = 0.01
MAX_OFFSET = 12  # frames: largest delay that is searched for, about half a second
MIN_CORRELATION = 0.35  # below, the delay is chance
LEAST_ENERGY = 1e-3  # standard deviation of the log energy: below, there is silence


def mouth_opening(points: Floats) -> Floats:
    """Gap ``[T]`` of the inner lips in distances of the outer eye corners, from landmarks ``[T, P, D]``."""
    layout = layout_of(points)
    gap = np.linalg.norm(points[:, layout.upper_lip] - points[:, layout.lower_lip], axis=-1)
    eyes = np.linalg.norm(points[:, layout.stable[0]] - points[:, layout.stable[3]], axis=-1)
    return gap / np.maximum(eyes, 1e-6)


def mouth_sound_correlation(track: Track, energy: NDArray[np.float32]) -> float:
    """Largest correlation, over small time shifts, of mouth opening with the log energy ``[T]``.

    It is weighted by the amount of movement, up to 1: resting lips correlate by chance, and a mouth that
    moves widely without speech, as in chewing, must not win by its amplitude.
    """
    first, length = track.frames[0], track.frames[-1] + 1 - track.frames[0]
    energy = energy[first : first + length]  # beyond its ends nothing is known of the mouth
    if len(energy) <= 2 * MAX_LEAD or energy.std() < LEAST_ENERGY:
        return 0.0
    opening = _smooth(mouth_opening(track.between(first, first + length).interpolated(len(energy))))
    sound = _smooth(energy)
    inner = sound[MAX_LEAD:-MAX_LEAD]
    shifts = range(2 * MAX_LEAD + 1)
    best = max(_correlation(opening[shift : shift + len(inner)], inner) for shift in shifts)
    moves = float(opening.std())
    return round(best * moves / (moves + RESTING), 6)


def audio_delay(points: Floats, energy: NDArray[np.float32]) -> float | None:
    """Estimate the delay of the audio against the lips.

    Returns:
        The shift in frames (25 Hz), to a tenth, at which mouth opening and log energy ``[T]`` correlate best;
        positive where the audio is late. None for silence, a clip below 1.5 s, a correlation below 0.35, or a
        maximum at the limit of half a second.
    """
    if len(energy) < 3 * MAX_OFFSET or energy.std() < LEAST_ENERGY:
        return None
    opening, sound = _smooth(mouth_opening(points)), _smooth(energy)
    inner = sound[MAX_OFFSET:-MAX_OFFSET]
    values = np.array(
        [_correlation(opening[shift : shift + len(inner)], inner) for shift in range(2 * MAX_OFFSET + 1)]
    )
    best = int(values.argmax())
    if values[best] < MIN_CORRELATION or best in (0, len(values) - 1):
        return None
    left, middle, right = (float(value) for value in values[best - 1 : best + 2])
    peak = best + (left - right) / (2 * (left - 2 * middle + right) or -1.0)
    return round(float(MAX_OFFSET - peak), 1)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation of two signals ``[T]``; 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-9)


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float64]:
    padded = np.pad(values.astype(np.float64), SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.ones(SMOOTHING) / SMOOTHING, mode="valid")


SIMILAR_LENGTH, RIVAL_LENGTH = 0.8, 0.5  # of the longest track


def choose_speaker(tracks: Sequence[Track], energy: NDArray[np.float32]) -> Track | None:
    """The face that speaks, see the head of this module; None without tracks.

    Args:
        tracks: the faces of the clip.
        energy: log energy ``[T]`` of the audio of each frame.
    """
    longest = max(map(len, tracks), default=0)
    rivals = [track for track in tracks if len(track) >= RIVAL_LENGTH * longest]
    if len(rivals) < 2:
        return rivals[0] if rivals else None

    def rating(track: Track) -> tuple[float, bool, float]:
        share = len(track) / longest
        follows = max(0.0, mouth_sound_correlation(track, energy))
        return follows * share, share >= SIMILAR_LENGTH, track.width

    return max(rivals, key=rating)
