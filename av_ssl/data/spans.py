"""Spans of masked frames, drawn as in wav2vec 2.0 and AV-HuBERT (fairseq's `compute_mask_indices`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
SPAN_LENGTHS = ("static", "uniform", "normal", "poisson")
MASK_SEMANTICS = ("fraction", "start_prob")


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError if a key of the configuration has none of these values."""
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(choices)}")


@dataclass(frozen=True)
class SpanMask:
    """Settings of the spans of one stream.

    Args:
        probability: 0 masks nothing; for its meaning see `semantics`.
        length: of a span, in frames; see `selection`.
        min_spans: least number of spans in a clip.
        equal_counts: un-mask random frames of a batch until all clips have equally many masked frames.
        selection: lengths of spans: `static` (`length`), `uniform` in [`other`, 2 `length`], `normal` (mean
            `length`, standard deviation `other`, at least 1) or `poisson` (mean `length`).
        other: see `selection`.
        overlap: False: spans are `min_space` frames apart, and those without room are left out.
        min_space: see `overlap`.
        semantics: `fraction`: the probability is a share of frames; n frames have `floor(probability * n /
            length + u)` spans, u uniform in [0, 1), and since spans overlap, fewer frames are masked.
            `start_prob`: it is the probability that a span starts in a frame, as the papers of wav2vec 2.0
            and RAVEn word it; the masked share is 1 - (1 - probability)^length.

    Raises ValueError if a setting is out of range.
    """

    probability: float
    length: int
    min_spans: int = 2
    equal_counts: bool = True
    selection: str = "static"
    other: float = 0.0
    overlap: bool = True
    min_space: int = 1
    semantics: str = "fraction"

    def __post_init__(self) -> None:
        if self.probability < 0 or self.length < 1:
            raise ValueError(
                f"mask probability {self.probability} and length {self.length}: the first must not be "
                "negative, the second at least 1 frame"
            )
        check_choice("mask_selection", self.selection, SPAN_LENGTHS)
        check_choice("mask_semantics", self.semantics, MASK_SEMANTICS)
        if self.semantics == "start_prob" and self.probability > 1:
            raise ValueError(f"with mask_semantics=start_prob, {self.probability} is no probability")

    def draw_count(self, frames: int, rng: np.random.Generator) -> int:
        if self.semantics == "start_prob":
            count = int(rng.binomial(frames, self.probability))
        else:
            count = int(self.probability * frames / self.length + rng.random())
        return max(self.min_spans, count)

    def draw_lengths(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.selection == "uniform":
            return rng.integers(int(self.other), 2 * self.length + 1, count)
        if self.selection == "normal":
            return np.maximum(1, np.rint(rng.normal(self.length, self.other, count))).astype(np.int64)
        if self.selection == "poisson":
            return rng.poisson(self.length, count)
        return np.full(count, self.length)


def draw_spans(lengths: Sequence[int], frames: int, spans: SpanMask, rng: np.random.Generator) -> BoolArray:
    """Mask `[B, T]` of B clips of `lengths` real frames, T = `frames`; never on padding."""
    mask = np.zeros((len(lengths), frames), bool)
    if spans.probability <= 0:
        return mask
    chosen = [_masked_frames(length, spans, rng) for length in lengths]
    fewest = min((len(masked) for masked in chosen), default=0)
    for row, masked in zip(mask, chosen, strict=True):
        if spans.equal_counts and len(masked) > fewest:
            masked = rng.choice(masked, fewest, replace=False)
        row[masked] = True
    return mask


def _masked_frames(frames: int, spans: SpanMask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Masked frames of one clip, in order, each once."""
    count = spans.draw_count(frames, rng)
    lengths = spans.draw_lengths(count, rng)
    if not spans.overlap:
        return _separate_spans(frames, lengths, spans.min_space, rng)
    if spans.semantics == "start_prob":
        starts = max(frames, count)
    else:
        starts = frames - int(lengths.min(initial=frames))
        starts = max(starts, count + 1)  # too short for so many spans: they may run over the end
    first = rng.choice(starts, count, replace=False)
    masked = np.zeros(frames, bool)
    for start, length in zip(first, lengths, strict=True):
        masked[start : start + length] = True
    return np.flatnonzero(masked)


def _separate_spans(
    frames: int, lengths: NDArray[np.int64], min_space: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Masked frames of spans that do not overlap: longest first, each in a gap drawn by its room."""
    masked = np.zeros(frames, bool)
    gaps = [(0, frames)]
    for length in sorted(map(int, lengths), reverse=True):
        rooms = np.array([max(0, end - start - length + 1) for start, end in gaps])
        if not rooms.sum():
            continue
        start, end = gaps.pop(int(rng.choice(len(gaps), p=rooms / rooms.sum())))
        first = int(rng.integers(start, end - length + 1))
        masked[first : first + length] = True
        gaps += [(start, first - min_space), (first + length + min_space, end)]
    return np.flatnonzero(masked)
