"""What was kept of pseudo-labels, and how good they are, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import editdistance

from av_ssl.data.manifest import Clip
from av_ssl.data.reading import FRAME_RATE
from av_ssl.transcription.hypotheses import Hypothesis
from av_ssl.transcription.pseudo_labels import Choice

BINS = 10
"""Of the histogram, and groups of equal size by confidence."""
NAMED = 10
"""Clips that stand as examples for a reason."""


def report(
    choice: Choice,
    labelled: Sequence[Clip],
    hypotheses: Mapping[str, Hypothesis],
    references: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Numbers for the report file.

    Args:
        choice: of the filter.
        labelled: clips with a transcript of their own.
        hypotheses: of all clips, by id.
        references: what is said in the clips that have a hypothesis, by id, where that is known.
    """
    kept = {label.clip.id for label in choice.kept}
    numbers: dict[str, Any] = {
        "labelled": size_of(labelled),
        "pseudo_labelled": size_of([label.clip for label in choice.kept]),
        "dropped": {
            reason: {**size_of(clips), "first": [clip.id for clip in clips[:NAMED]]}
            for reason, clips in sorted(choice.dropped.items())
        },
        "confidence": histogram(hypotheses, kept),
    }
    if references is not None:
        numbers["word_error_rate"] = error_rates(hypotheses, references, kept)
    return numbers


def size_of(clips: Sequence[Clip]) -> dict[str, Any]:
    """Number of clips and hours."""
    hours = sum(clip.frames for clip in clips) / FRAME_RATE / 3600
    return {"clips": len(clips), "hours": round(hours, 4)}


def histogram(hypotheses: Mapping[str, Hypothesis], kept: set[str]) -> list[dict[str, Any]]:
    """Transcribed clips, and those kept, by confidence."""
    counts = [
        {"from": index / BINS, "to": (index + 1) / BINS, "clips": 0, "kept": 0} for index in range(BINS)
    ]
    for hypothesis in hypotheses.values():
        entry = counts[min(BINS - 1, int(hypothesis.confidence * BINS))]
        entry["clips"] += 1
        entry["kept"] += hypothesis.id in kept
    return counts


def error_rates(
    hypotheses: Mapping[str, Hypothesis], references: Mapping[str, str], kept: set[str]
) -> dict[str, Any]:
    """Word error rates: of all transcripts, of those kept, and of tenths by confidence, the lowest first."""
    scored = [hypothesis for hypothesis in hypotheses.values() if references[hypothesis.id].split()]
    ranked = sorted(scored, key=lambda hypothesis: hypothesis.confidence)
    ends = [len(ranked) * index // BINS for index in range(BINS + 1)]
    groups = [ranked[start:end] for start, end in pairwise(ends) if end > start]
    return {
        "all": error_rate(scored, references),
        "kept": error_rate([one for one in scored if one.id in kept], references),
        "deciles": [
            {
                "confidence_from": group[0].confidence,
                "confidence_to": group[-1].confidence,
                **error_rate(group, references),
            }
            for group in groups
        ],
    }


def error_rate(hypotheses: Sequence[Hypothesis], references: Mapping[str, str]) -> dict[str, Any]:
    """Clips, words of the references, and errors in percent of these (None without words), whatever their
    case."""
    words, errors = 0, 0
    for hypothesis in hypotheses:
        reference = references[hypothesis.id].lower().split()
        words += len(reference)
        errors += editdistance.eval(hypothesis.text.lower().split(), reference)
    rate = round(100 * errors / words, 2) if words else None
    return {"clips": len(hypotheses), "words": words, "wer": rate}
