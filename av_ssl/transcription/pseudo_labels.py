"""Pseudo-labels: a data folder for fine-tuning on labelled clips and on transcripts of a recogniser.

Self-training as in RAVEn (Haliassos et al., ICLR 2023): an audio model that was fine-tuned on the labelled
clips transcribes the unlabelled ones, and a new model is trained on both. We do not know whether the paper
filters the transcripts; all rules here are [ours].

    OUT/train.tsv, train.wrd                labelled clips first, then the pseudo-labelled ones
    OUT/{valid,test}.tsv, .wrd              of the labelled folder
    OUT/dict.*.txt, spm.model, spm.vocab    likewise
    OUT/pseudo_labels/settings.json         settings; other settings are refused
    OUT/pseudo_labels/report.json           numbers, written last
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import editdistance

from av_ssl.data.labels import LabelFile
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.io import digest, keep_settings, write_atomically, write_json
from av_ssl.layout import DICTIONARY, FRAME_RATE, PIECES, TOKENIZER
from av_ssl.manifest import Clip, manifest_text, read_manifest
from av_ssl.transcription.hypotheses import Hypothesis, read_hypotheses

UNTRANSCRIBED, TOO_SHORT, TOO_LONG = "without transcript", "too short", "too long"
LABELLED, EVALUATED, NO_STREAM = "labelled already", "in valid or test", "without a stream that is needed"
EMPTY, UNKNOWN = "empty transcript", "symbols that the dictionary lacks"
UNSURE, BEYOND_SHARE = "confidence too low", "beyond the share that is kept"
TRAIN, EVALUATION = "train", ("valid", "test")
LABELS = "wrd"
REPORT = "pseudo_labels/report.json"
SETTINGS = "pseudo_labels/settings.json"
BINS = 10
"""Of the histogram, and number of groups of equal size by confidence."""
NAMED = 10
"""Clips that are named as examples of a reason."""


@dataclass(frozen=True)
class Rules:
    """Conditions for a pseudo-labelled clip.

    Args:
        min_confidence: from 0 to 1.
        keep: share of the clips that meet all other conditions, the most confident ones.
        min_frames, max_frames: of a clip, at 25 Hz.
    """

    min_confidence: float = 0.0
    keep: float = 1.0
    min_frames: int = 10
    max_frames: int = 600


@dataclass
class Choice:
    """Clips that are kept, in the order of the manifest, and those that are dropped by reason."""

    kept: list[Clip] = field(default_factory=list)
    dropped: dict[str, list[Clip]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class LabelledFolder:
    """Manifests, transcripts, dictionary and tokenizer of the labelled clips.

    Reading raises DataError that names a missing or malformed file. ``tokenizer`` is a sentencepiece model;
    None: ``spm.model`` of the folder, if there is one.
    """

    path: Path
    tokenizer: Path | None = None

    @cached_property
    def splits(self) -> dict[str, list[Clip]]:
        """Clips of train, valid and, if it has transcripts, test."""
        there = [TRAIN, "valid", *(["test"] if (self.path / f"test.{LABELS}").is_file() else [])]
        return {split: read_manifest(self.path / f"{split}.tsv") for split in there}

    @cached_property
    def trained(self) -> set[str]:
        return {clip.id for clip in self.splits[TRAIN]}

    @cached_property
    def evaluated(self) -> set[str]:
        """Ids of the validation and test lists, which must not be trained on."""
        return {clip.id for split in EVALUATION for clip in self.splits.get(split, [])}

    @cached_property
    def streams(self) -> list[str]:
        """Streams that all training clips have."""
        return [
            name for name in ("video", "audio") if all(getattr(clip, name) for clip in self.splits[TRAIN])
        ]

    @cached_property
    def encoder(self) -> TextEncoder:
        return TextEncoder.load(self.path / DICTIONARY, self.tokenizer_file)

    @property
    def tokenizer_file(self) -> Path | None:
        beside = self.path / TOKENIZER
        return self.tokenizer or (beside if beside.is_file() else None)

    def transcripts(self, split: str) -> list[str]:
        labels = LabelFile(self.path / f"{split}.{LABELS}", self.splits[split])
        return [labels.line(number) for number in range(len(self.splits[split]))]

    def settings(self) -> dict[str, Any]:
        names = [f"{split}.{kind}" for split in self.splits for kind in ("tsv", LABELS)]
        files = {name: self.path / name for name in [*names, DICTIONARY] if (self.path / name).is_file()}
        if self.tokenizer_file is not None:
            files[TOKENIZER] = self.tokenizer_file
        return {f"labelled {name}": digest(path) for name, path in files.items()}


def write_pseudo_labels(
    manifest: Path,
    transcripts: Path,
    labelled: LabelledFolder,
    out: Path,
    rules: Rules,
    references: Path | None = None,
) -> dict[str, Any]:
    """Filter transcripts, and write a folder for training on them and on the labelled clips.

    Args:
        manifest: of the clips that were transcribed.
        transcripts: their `{subset}.hyp.tsv`.
        labelled: its transcripts win over pseudo-labels, and its validation and test clips are left out.
        out: new, empty, or made by this function with the same settings.
        rules: of the filter.
        references: true transcripts, one line per clip, only to measure errors; None: unknown.

    Returns the numbers of the report. Raises DataError if no clip is kept, or `out` holds other files.
    """
    clips = read_manifest(manifest)
    hypotheses = by_id(transcripts, read_hypotheses(transcripts), clips)
    choice = choose(clips, hypotheses, labelled, rules)
    truth = None
    if references is not None:
        lines = LabelFile(references, clips)
        truth = {clip.id: lines.line(number) for number, clip in enumerate(clips)}
    numbers = report(choice, labelled.splits[TRAIN], hypotheses, truth)
    inputs = {"manifest": digest(manifest), "transcripts": digest(transcripts)}
    settings = {**vars(rules), **inputs, **labelled.settings()}
    write_folder(out, training_files(labelled, choice.kept, hypotheses), settings)
    write_json(out / REPORT, numbers)
    return numbers


# -- the filter ----------------------------------------------------------------------------------------------


def by_id(path: Path, hypotheses: Sequence[Hypothesis], clips: Sequence[Clip]) -> dict[str, Hypothesis]:
    """Hypotheses by clip; DataError if one is of a clip that the manifest lacks."""
    known = {clip.id for clip in clips}
    for hypothesis in hypotheses:
        if hypothesis.id not in known:
            raise DataError(
                f"{path}: has a transcript of {hypothesis.id!r}, which the manifest lacks; name the data "
                "folder that was transcribed"
            )
    return {hypothesis.id: hypothesis for hypothesis in hypotheses}


def choose(
    clips: Sequence[Clip], hypotheses: Mapping[str, Hypothesis], labelled: LabelledFolder, rules: Rules
) -> Choice:
    """Divide the clips of a manifest into kept and dropped ones, each dropped for the first reason.

    Raises DataError, with the reasons, if none is kept.
    """
    choice = Choice()
    passed: list[Clip] = []
    for clip in clips:
        reason = next(_reasons(clip, hypotheses.get(clip.id), labelled, rules), None)
        (passed if reason is None else choice.dropped[reason]).append(clip)
    # Of equal confidences the first clip wins, so that the same input gives the same choice.
    ranked = sorted(range(len(passed)), key=lambda index: -hypotheses[passed[index].id].confidence)
    best = set(ranked[: round(rules.keep * len(passed))])
    choice.kept = [clip for index, clip in enumerate(passed) if index in best]
    if beyond := [clip for index, clip in enumerate(passed) if index not in best]:
        choice.dropped[BEYOND_SHARE] = beyond
    if not choice.kept:
        counts = ", ".join(f"{len(dropped)} {reason}" for reason, dropped in choice.dropped.items())
        fix = "relax --min-confidence, --keep, --min-frames or --max-frames"
        if len(choice.dropped.get(LABELLED, ())) == len(clips):
            fix = "add clips without transcripts to the list"
        raise DataError(f"no pseudo-labelled clip is left of {len(clips)}: {counts}; {fix}")
    return choice


def _reasons(
    clip: Clip, hypothesis: Hypothesis | None, labelled: LabelledFolder, rules: Rules
) -> Iterator[str]:
    """Why a clip is dropped, the simplest reason first."""
    if clip.id in labelled.trained:
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


# -- the report ----------------------------------------------------------------------------------------------


def report(
    choice: Choice,
    labelled: Sequence[Clip],
    hypotheses: Mapping[str, Hypothesis],
    references: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Numbers for the report file.

    ``references`` are true transcripts of the clips that have a hypothesis, by id, if they are known.
    """
    kept = {clip.id for clip in choice.kept}
    numbers: dict[str, Any] = {
        "labelled": size_of(labelled),
        "pseudo_labelled": size_of(choice.kept),
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
    hours = sum(clip.frames for clip in clips) / FRAME_RATE / 3600
    return {"clips": len(clips), "hours": round(hours, 4)}


def histogram(hypotheses: Mapping[str, Hypothesis], kept: set[str]) -> list[dict[str, Any]]:
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
    """Word error rates of all transcripts, of the kept ones, and of tenths by confidence, lowest first."""
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
    """Clips, words of the references, and errors in percent of these (None without words), ignoring case."""
    words, errors = 0, 0
    for hypothesis in hypotheses:
        reference = references[hypothesis.id].lower().split()
        words += len(reference)
        errors += editdistance.eval(hypothesis.text.lower().split(), reference)
    rate = round(100 * errors / words, 2) if words else None
    return {"clips": len(hypotheses), "words": words, "wer": rate}


# -- the folder ----------------------------------------------------------------------------------------------


def training_files(
    labelled: LabelledFolder, pseudo: Sequence[Clip], hypotheses: Mapping[str, Hypothesis]
) -> dict[str, bytes]:
    clips = [*labelled.splits[TRAIN], *pseudo]
    texts = [*labelled.transcripts(TRAIN), *(hypotheses[clip.id].text for clip in pseudo)]
    files = {f"{TRAIN}.tsv": manifest_text(clips).encode(), f"{TRAIN}.{LABELS}": _lines(texts)}
    for split in EVALUATION:
        if split in labelled.splits:
            files[f"{split}.tsv"] = manifest_text(labelled.splits[split]).encode()
            files[f"{split}.{LABELS}"] = _lines(labelled.transcripts(split))
    for path in [*sorted(labelled.path.glob("dict.*.txt")), labelled.path / PIECES]:
        if path.is_file():
            files[path.name] = path.read_bytes()
    if labelled.tokenizer_file is not None:
        files[TOKENIZER] = labelled.tokenizer_file.read_bytes()
    return files


def write_folder(out: Path, files: Mapping[str, bytes], settings: Mapping[str, Any]) -> None:
    """Write files with their settings; the same input gives the same bytes, so a killed run is repeated.

    Raises DataError if the folder holds something else, or was made with other settings.
    """
    if not (out / SETTINGS).exists() and out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: holds files that this command did not write; choose a new or empty --out")
    keep_settings(out / SETTINGS, settings, f"delete {out}, or choose another --out")
    for name, content in files.items():
        write_atomically(out / name, content)


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
