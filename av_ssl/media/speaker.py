"""Which of several faces is the one that speaks.

The rule: the face tracked longest wins; among faces tracked at least 80 % as long, the one whose mouth goes
best with the sound (`synchrony.mouth_follows_sound`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from av_ssl.media.synchrony import mouth_follows_sound
from av_ssl.media.tracking import Track

SIMILAR_LENGTH = 0.8  # of the longest track


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
