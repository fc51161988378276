"""CTC prefix beam search (Hannun et al., 2014, arXiv 1408.2873, without a language model).

It extends prefixes frame by frame, in numpy alone: models in ONNX are decoded without torch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.layout import BLANK

Prefix = tuple[int, ...]
Ends = tuple[float, float]
"""Log-probabilities of the paths of a prefix that end in blank, and of the others."""
PRUNE = 12.0
"""Symbols less probable than the frame's best by more than this (in nats) are skipped."""


def prefix_search(
    log_probs: NDArray[np.float32], beam: int, prune: float = PRUNE
) -> list[tuple[Prefix, float]]:
    """Best prefixes of one clip with their log-probabilities (sums over all paths), best first.

    Args:
        log_probs: ``[T, V]``; a symbol at -inf is never output.
        beam: prefixes kept; 1 is greedy search over paths.
        prune: see `PRUNE`.
    """
    if beam == 1:
        return [greedy(log_probs)]
    prefixes: dict[Prefix, Ends] = {(): (0.0, -math.inf)}
    for frame in log_probs:
        likely = np.isfinite(frame) & (frame >= frame.max() - np.float32(prune))
        symbols = likely.nonzero()[0]
        prefixes = extend(prefixes, dict(zip(symbols.tolist(), frame[symbols].tolist(), strict=True)), beam)
    ranked = sorted(prefixes.items(), key=lambda item: -log_add(*item[1]))
    return [(prefix, log_add(*ends)) for prefix, ends in ranked]


def extend(prefixes: dict[Prefix, Ends], frame: dict[int, float], beam: int) -> dict[Prefix, Ends]:
    """The best prefixes after one more frame, whose symbols have these log-probabilities."""
    grown: dict[Prefix, list[float]] = defaultdict(lambda: [-math.inf, -math.inf])

    def add(prefix: Prefix, end: int, score: float) -> None:
        grown[prefix][end] = log_add(grown[prefix][end], score)

    for prefix, (blank_end, symbol_end) in prefixes.items():
        either = log_add(blank_end, symbol_end)
        for symbol, score in frame.items():
            if symbol == BLANK:
                add(prefix, 0, either + score)
            elif prefix and prefix[-1] == symbol:
                add(prefix, 1, symbol_end + score)
                add((*prefix, symbol), 1, blank_end + score)
            else:
                add((*prefix, symbol), 1, either + score)
    possible = [item for item in grown.items() if max(item[1]) > -math.inf]
    best = sorted(possible, key=lambda item: -log_add(*item[1]))[:beam]
    return {prefix: (ends[0], ends[1]) for prefix, ends in best}


def greedy(log_probs: NDArray[Any]) -> tuple[Prefix, float]:
    """The most probable path, repeats merged and blanks dropped, with that path's log-probability."""
    path = log_probs.argmax(axis=-1).tolist()
    symbols = tuple(symbol for symbol, _ in groupby(path) if symbol != BLANK)
    return symbols, float(log_probs.max(axis=-1).sum())


def log_add(a: float, b: float) -> float:
    """``log(exp(a) + exp(b))``."""
    if a == -math.inf:
        return b
    if b == -math.inf:
        return a
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))
