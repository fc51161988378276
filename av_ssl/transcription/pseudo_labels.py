"""Which transcripts of a recogniser are good enough to train on.

Self-training as in RAVEn (Haliassos et al., ICLR 2023): an audio model that was fine-tuned on the labelled
clips transcribes the unlabelled ones, and a new model is trained on both.  The paper's filter, if it had one,
is not known to us: all rules here are [ours].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av_ssl.data.manifest import Clip
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.transcription.hypotheses import Hypothesis

UNTRANSCRIBED, TOO_SHORT, TOO_LONG = "without transcript", "too short", "too long"
LABELLED, EVALUATED, NO_STREAM = "labelled already", "in valid or test", "without a stream that is needed"
EMPTY, UNKNOWN = "empty transcript", "symbols that the dictionary lacks"
UNSURE, BEYOND_SHARE = "confidence too low", "beyond the share that is kept"


@dataclass(frozen=True)
class Rules:
    """What a pseudo-labelled clip must be like.

    Args:
        min_confidence: from 0 to 1.
        keep: share of the clips that pass all else, the most confident ones.
        min_frames, max_frames: of a clip, at 25 Hz.
    """

    min_confidence: float = 0.0
    keep: float = 1.0
    min_frames: int = 10
    max_frames: int = 600


@dataclass(frozen=True)
class Labelled:
    """What must be known of the labelled clips.

    Args:
        train: ids of the training list.
        evaluated: ids of the validation and test lists, which must stay unseen.
        streams: what all training clips have, of `video` and `audio`.
        encoder: dictionary and tokenizer that the transcripts go through in training.
    """

    train: Collection[str]
    evaluated: Collection[str]
    streams: Sequence[str]
    encoder: TextEncoder


@dataclass(frozen=True)
class PseudoLabel:
    """A clip with the transcript that it is trained with."""

    clip: Clip
    hypothesis: Hypothesis


@dataclass
class Choice:
    """Outcome of the filter.

    Attributes:
        kept: in the order of the manifest.
        dropped: clips by reason.
    """

    kept: list[PseudoLabel] = field(default_factory=list)
    dropped: dict[str, list[Clip]] = field(default_factory=lambda: defaultdict(list))


def choose(
    clips: Sequence[Clip], hypotheses: Mapping[str, Hypothesis], labelled: Labelled, rules: Rules
) -> Choice:
    """Sort the clips of a manifest into those to train on and those dropped, each for the first reason.

    Raises DataError when none is kept; the text says why.
    """
    choice = Choice()
    passed: list[PseudoLabel] = []
    for clip in clips:
        hypothesis = hypotheses.get(clip.id)
        reason = next(_reasons(clip, hypothesis, labelled, rules), None)
        if reason is not None:
            choice.dropped[reason].append(clip)
        else:
            assert hypothesis is not None
            passed.append(PseudoLabel(clip, hypothesis))
    # Ties go to the clip that comes first, so that the same input gives the same choice.
    ranked = sorted(range(len(passed)), key=lambda index: -passed[index].hypothesis.confidence)
    best = set(ranked[: round(rules.keep * len(passed))])
    choice.kept = [label for index, label in enumerate(passed) if index in best]
    if beyond := [label.clip for index, label in enumerate(passed) if index not in best]:
        choice.dropped[BEYOND_SHARE] = beyond
    if not choice.kept:
        counts = ", ".join(f"{len(dropped)} {reason}" for reason, dropped in choice.dropped.items())
        raise DataError(
            f"no pseudo-labelled clip is left of {len(clips)}: {counts}; "
            "relax --min-confidence, --keep, --min-frames or --max-frames"
        )
    return choice


def _reasons(clip: Clip, hypothesis: Hypothesis | None, labelled: Labelled, rules: Rules) -> Iterator[str]:
    """Why a clip is dropped, the plainest reason first."""
    if clip.id in labelled.train:
        yield LABELLED
    if clip.id in labelled.evaluated:
        yield EVALUATED
    if clip.frames < rules.min_frames:
        yield TOO_SHORT
    if clip.frames > rules.max_frames:
        yield TOO_LONG
    if any(getattr(clip, stream) is None for stream in labelled.streams):
        yield NO_STREAM
    if hypothesis is None:
        yield UNTRANSCRIBED
        return
    if not hypothesis.words:
        yield EMPTY
    if hypothesis.confidence < rules.min_confidence:
        yield UNSURE
    encoder = labelled.encoder
    if any(symbol not in encoder.dictionary for symbol in encoder.encode(hypothesis.text).split()):
        yield UNKNOWN


def by_id(path: Path, hypotheses: Sequence[Hypothesis], clips: Sequence[Clip]) -> dict[str, Hypothesis]:
    """Hypotheses by clip; DataError when they are of clips that the manifest lacks."""
    known = {clip.id for clip in clips}
    for hypothesis in hypotheses:
        if hypothesis.id not in known:
            raise DataError(
                f"{path}: has a transcript of {hypothesis.id!r}, which the manifest lacks; name the data "
                "folder that was transcribed"
            )
    return {hypothesis.id: hypothesis for hypothesis in hypotheses}
