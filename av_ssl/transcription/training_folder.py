"""A data folder for fine-tuning: labelled and pseudo-labelled clips in one training list.

OUT/train.tsv, train.wrd                labelled clips first, then the pseudo-labelled ones
OUT/{valid,test}.tsv, .wrd              of the labelled folder
OUT/dict.*.txt, spm.model, spm.vocab    likewise
OUT/pseudo_labels/settings.json         what the folder was made with; other settings are refused
OUT/pseudo_labels/report.json           written last
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from av_ssl.data.labels import LabelFile
from av_ssl.data.manifest import Clip, manifest_text, read_manifest
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.media.files import write_atomically
from av_ssl.targets.kept_settings import digest, keep_settings
from av_ssl.transcription.pseudo_labels import Labelled, PseudoLabel

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
