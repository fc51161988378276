"""Linear centred kernel alignment: how alike two sets of features are, whatever their channels mean.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019 (arXiv 1905.00414),
section 3: 1 for features that are the same but for rotation, reflection, shift and one common scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av_ssl.analysis.features import FeatureFolder, Floats
from av_ssl.errors import DataError

Matrix = NDArray[np.float64]


def cka_matrix(x: Floats, y: Floats) -> Matrix:
    """CKA ``[L, M]``, 0 to 1, of all layers ``[N, L, C]`` with all layers ``[N, M, D]`` of the same N frames.

    With few frames it is too high: it nears 1 as channels outnumber frames, whatever they hold. Take many
    times more frames than channels.
    """
    if len(x) != len(y):
        raise DataError(f"CKA compares features of the same frames, not of {len(x)} and {len(y)}")
    ours = [_centred(x[:, layer]) for layer in range(x.shape[1])]
    theirs = [_centred(y[:, layer]) for layer in range(y.shape[1])]
    own = [np.linalg.norm(a.T @ a) for a in ours]
    other = [np.linalg.norm(b.T @ b) for b in theirs]
    shared = [[np.linalg.norm(a.T @ b) ** 2 for b in theirs] for a in ours]
    return np.asarray(shared) / np.outer(own, other)


def shared_frames(a: FeatureFolder, b: FeatureFolder) -> tuple[Floats, Floats]:
    """Layers ``[N, L, C]`` and ``[N, M, D]`` of the clips that both folders have, frames matched by time.

    The folder with more frames a second is interpolated linearly at the other's times, so a frame of 25 Hz is
    compared with the mean of the two of 50 Hz in it; what only one of them covers is left out.

    Raises DataError when they have no clip in common.
    """
    clips = [clip for clip in a.clips if clip in b.clips]
    if not clips:
        raise DataError(f"{a.path} and {b.path} have no clip in common")
    pairs = [_matched(a, b, clip) for clip in clips]
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def _matched(a: FeatureFolder, b: FeatureFolder, clip: str) -> tuple[Floats, Floats]:
    if a.rate > b.rate:
        y, x = _matched(b, a, clip)
        return x, y
    times, finer = a.times(clip), b.times(clip)
    kept = times <= finer[-1] + 0.5 / b.rate
    return np.asarray(a.features(clip)[kept]), interpolated(b.features(clip), finer, times[kept])


def interpolated(x: Floats, own: Floats, wanted: Floats) -> NDArray[np.float32]:
    """Features ``[m, ...]`` at times ``wanted``, of ``x`` ``[n, ...]`` at rising times; ends are repeated."""
    places = np.interp(wanted, own, np.arange(len(own)))
    left = np.floor(places).astype(np.int64)
    right = np.minimum(left + 1, len(own) - 1)
    share = (places - left).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray((1 - share) * x[left] + share * x[right], np.float32)


def _centred(x: Floats) -> Matrix:
    centred = np.asarray(x, np.float64)
    centred = centred - centred.mean(axis=0)
    if not np.abs(centred).max() > 0:
        raise DataError("CKA is not defined for features that are the same in all frames")
    return centred
