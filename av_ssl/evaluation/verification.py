"""Equal error rate and detection cost of a speaker verification trial list.

Both are read off the same curve: trials are sorted by score, those with equal scores enter together, and
"reject everything" is its first point.  Other tools differ in the details (the nearest point in place of the
crossing, ties in the order of the list, a cost that is not normalised), which shows on short lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class ErrorCurve(NamedTuple):
    """Share of target trials rejected and of non-target trials accepted, `[P]` each, as the threshold
    falls."""

    misses: Floats
    false_alarms: Floats


def error_curve(scores: ArrayLike, targets: ArrayLike) -> ErrorCurve:
    """Both error rates at every threshold that the scores allow.

    Args:
        scores: `[N]`, higher for the same speaker.
        targets: `[N]`, true where both sides are one speaker.

    Raises ValueError when scores and targets differ in number, a score is no finite number, or one kind of
    trial is missing.
    """
    score, target = np.asarray(scores, np.float64), np.asarray(targets, np.bool_)
    if score.shape != target.shape or score.ndim != 1:
        raise ValueError(f"{score.shape} scores for {target.shape} trials; give one for each")
    if not np.isfinite(score).all():
        raise ValueError(f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite")
    if target.all() or not target.any():
        raise ValueError(
            f"{target.sum()} of {len(target)} trials are of one speaker; error rates need both kinds of trial"
        )
    order = np.argsort(-score, kind="stable")
    # Equal scores are accepted together: the curve has a point behind the last of them.
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    accepted_targets = np.append(0, np.cumsum(target[order])[last])
    accepted_others = np.append(0, np.cumsum(~target[order])[last])
    return ErrorCurve(1 - accepted_targets / target.sum(), accepted_others / (~target).sum())


def equal_error_rate(scores: ArrayLike, targets: ArrayLike) -> float:
    """The error rate where misses and false alarms are equally frequent, interpolated linearly.

    Raises ValueError as `error_curve` does.

    >>> round(equal_error_rate([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 6)
    0.4
    """
    misses, false_alarms = error_curve(scores, targets)
    difference = misses - false_alarms  # from 1 to -1
    after = int(np.argmax(difference <= 0))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))


def minimum_detection_cost(
    scores: ArrayLike,
    targets: ArrayLike,
    target_prior: float = 0.01,
    miss_cost: float = 1.0,
    false_alarm_cost: float = 1.0,
) -> float:
    """minDCF: the lowest expected cost over all thresholds, divided by that of the better constant answer.

    Raises ValueError as `error_curve` does, or when the prior is not between 0 and 1.

    >>> round(minimum_detection_cost([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 5)
    0.66667
    """
    if not 0 < target_prior < 1:
        raise ValueError(f"target_prior is {target_prior}; it is a probability between 0 and 1")
    misses, false_alarms = error_curve(scores, targets)
    reject_all, accept_all = miss_cost * target_prior, false_alarm_cost * (1 - target_prior)
    cost = reject_all * misses + accept_all * false_alarms
    return float(cost.min() / min(reject_all, accept_all))


def trial_report(scores: Sequence[float] | Floats, targets: Sequence[bool] | NDArray[np.bool_]) -> str:
    """What is reported of a list: counts, EER in percent, minDCF at target priors of 0.01 and 0.05."""
    target = np.asarray(targets, np.bool_)
    costs = [minimum_detection_cost(scores, targets, prior) for prior in (0.01, 0.05)]
    return (
        f"{len(target)} trials ({target.sum()} target, {(~target).sum()} non-target): "
        f"EER {100 * equal_error_rate(scores, targets):.3f} %, "
        f"minDCF(0.01) {costs[0]:.4f}, minDCF(0.05) {costs[1]:.4f}"
    )
