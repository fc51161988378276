"""Which of several faces is the one that speaks.

The rule: the face tracked longest wins; among faces tracked at least 80 % as long, the one whose mouth moves
most with the sound. That is measured as the covariance of the mouth's opening (in eye distances, so that near
and far faces compare) with the standardised log energy of the audio: a listener whose lips rest has next to
none, even when noise correlates by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, Floats
from av_ssl.media.tracking import Track

SIMILAR_LENGTH = 0.8  # of the longest track
UPPER_LIP, LOWER_LIP = 13, 14  # inner edges, middle
SMOOTHING = 5  # frames: syllables, not single pictures
MAX_LEAD = 3  # frames by which lips may move before or after the sound


def choose_speaker(tracks: Sequence[Track], energy: NDArray[np.float32]) -> Track | None:
    """The speaking face by the rule above, or None without tracks.

    `energy` is the log energy `[T]` of the audio under each frame.
    """
    if not tracks:
        return None
    longest = max(len(track) for track in tracks)
    rivals = [track for track in tracks if len(track) >= SIMILAR_LENGTH * longest]
    if len(rivals) == 1:
        return rivals[0]
    # Ties (silence) go to the larger face.
    return max(rivals, key=lambda track: (mouth_follows_sound(track, energy), track.width))


def mouth_opening(points: Floats) -> Floats:
    """Gap between the inner lips `[T]` in eye distances, from mesh points `[T, 468, 3]`."""
    gap = np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=-1)
    eyes = np.linalg.norm(points[:, RIGHT_EYE_OUTER] - points[:, LEFT_EYE_OUTER], axis=-1)
    return gap / np.maximum(eyes, 1e-6)


def mouth_follows_sound(track: Track, energy: NDArray[np.float32]) -> float:
    """Largest covariance, over small time shifts, of mouth opening with the standardised energy `[T]`."""
    if len(energy) <= 2 * MAX_LEAD or energy.std() < 1e-3:
        return 0.0
    opening = _smooth(mouth_opening(track.interpolated(len(energy))))
    sound = _smooth((energy - energy.mean()) / energy.std())
    inner = sound[MAX_LEAD:-MAX_LEAD]
    shifts = range(2 * MAX_LEAD + 1)
    covariances = [np.cov(opening[s : s + len(inner)], inner)[0, 1] for s in shifts]
    return round(float(max(covariances)), 6)


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float64]:
    padded = np.pad(values.astype(np.float64), SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
