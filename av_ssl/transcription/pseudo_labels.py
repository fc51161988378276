"""Which transcripts of a recogniser are good enough to train on.

Self-training as in RAVEn (Haliassos et al., ICLR 2023): an audio model that was fine-tuned on the labelled
clips transcribes the unlabelled ones, and a new model is trained on both.  The paper's filter, if it had one,
is not known to us: all rules here are [ours].

What was kept of pseudo-labels, and how good they are, in numbers.

A data folder for fine-tuning: labelled and pseudo-labelled clips in one training list.

OUT/train.tsv, train.wrd                labelled clips first, then the pseudo-labelled ones
OUT/{valid,test}.tsv, .wrd              of the labelled folder
OUT/dict.*.txt, spm.model, spm.vocab    likewise
OUT/pseudo_labels/settings.json         what the folder was made with; other settings are refused
OUT/pseudo_labels/report.json           written last
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import editdistance

from av_ssl.data.labels import LabelFile
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.inference import Hypothesis
from av_ssl.io import digest, keep_settings, write_atomically
from av_ssl.layout import FRAME_RATE, Clip, manifest_text, read_manifest

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


TRAIN, EVALUATION = "train", ("valid", "test")
LABELS = "wrd"
DICTIONARY, MODEL, PIECES = "dict.wrd.txt", "spm.model", "spm.vocab"


@dataclass(frozen=True)
class LabelledFolder:
    """Manifests, transcripts, dictionary and tokenizer of the labelled clips.

    Args:
        path: the folder; valid is needed, test is not.
        tokenizer: sentencepiece model; None: `spm.model` of the folder, if there is one.

    Reading raises DataError that names the file that is missing or malformed.
    """

    path: Path
    tokenizer: Path | None = None

    @cached_property
    def splits(self) -> dict[str, list[Clip]]:
        """Clips of train, valid and, where it has transcripts, test."""
        there = [TRAIN, "valid", *(["test"] if self.file(f"test.{LABELS}").is_file() else [])]
        return {split: read_manifest(self.file(f"{split}.tsv")) for split in there}

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return self.path / name

    def transcripts(self, split: str) -> list[str]:
        """A line a clip."""
        labels = LabelFile(self.file(f"{split}.{LABELS}"), self.splits[split])
        return [labels.line(number) for number in range(len(self.splits[split]))]

    @property
    def tokenizer_file(self) -> Path | None:
        """The sentencepiece model."""
        beside = self.file(MODEL)
        return self.tokenizer or (beside if beside.is_file() else None)

    def facts(self) -> Labelled:
        """What the filter must know."""
        train = self.splits[TRAIN]
        return Labelled(
            train={clip.id for clip in train},
            evaluated={clip.id for split in EVALUATION for clip in self.splits.get(split, [])},
            streams=[name for name in ("video", "audio") if all(getattr(clip, name) for clip in train)],
            encoder=TextEncoder.load(self.file(DICTIONARY), self.tokenizer_file),
        )

    def settings(self) -> dict[str, Any]:
        """Content of the files, for comparison."""
        names = [f"{split}.{kind}" for split in self.splits for kind in ("tsv", LABELS)]
        files = {name: self.file(name) for name in [*names, DICTIONARY] if self.file(name).is_file()}
        if self.tokenizer_file is not None:
            files[MODEL] = self.tokenizer_file
        return {f"labelled {name}": digest(path) for name, path in files.items()}

    def check_ids(self) -> None:
        """Raise DataError when an id stands twice in the training list."""
        seen: dict[str, int] = {}
        for clip in self.splits[TRAIN]:
            if clip.id in seen:
                raise DataError(
                    f"{self.file('train.tsv')}, line {clip.line}: id {clip.id!r} stands on line "
                    f"{seen[clip.id]}, too; rename one, or take it out with its transcript"
                )
            seen[clip.id] = clip.line


class TrainingFolder:
    """The folder to be written.

    Args:
        path: new, empty, or made by this class.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = path / "pseudo_labels"

    @property
    def report(self) -> Path:
        """Numbers of the finished folder."""
        return self.own / "report.json"

    def write(self, files: dict[str, bytes], settings: dict[str, Any], numbers: dict[str, Any]) -> None:
        """Write all files; the same input gives the same bytes, so that a killed run is simply repeated.

        Args:
            files: content by name.
            settings: what they were made with.
            numbers: for the report.

        Raises DataError when the folder holds something else, or was made with other settings.
        """
        noted = self.own / "settings.json"
        if not noted.exists() and self.path.exists() and any(self.path.iterdir()):
            raise DataError(
                f"{self.path}: holds files that this command did not write; choose a new or empty --out"
            )
        keep_settings(noted, settings, f"delete {self.path}, or choose another --out")
        for name, content in files.items():
            write_atomically(self.path / name, content)
        write_atomically(self.report, json.dumps(numbers, indent=1).encode() + b"\n")


def training_files(labelled: LabelledFolder, pseudo: Sequence[PseudoLabel]) -> dict[str, bytes]:
    """All files that training reads, by name."""
    clips = [*labelled.splits[TRAIN], *(label.clip for label in pseudo)]
    texts = [*labelled.transcripts(TRAIN), *(label.hypothesis.text for label in pseudo)]
    files = {f"{TRAIN}.tsv": manifest_text(clips).encode(), f"{TRAIN}.{LABELS}": _lines(texts)}
    for split in EVALUATION:
        if split in labelled.splits:
            files[f"{split}.tsv"] = manifest_text(labelled.splits[split]).encode()
            files[f"{split}.{LABELS}"] = _lines(labelled.transcripts(split))
    for path in [*sorted(labelled.path.glob("dict.*.txt")), labelled.file(PIECES)]:
        if path.is_file():
            files[path.name] = path.read_bytes()
    if labelled.tokenizer_file is not None:
        files[MODEL] = labelled.tokenizer_file.read_bytes()
    return files


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
