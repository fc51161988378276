"""Lists of clips and their labels on disk: what `av-ssl manifest` leaves in a data folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av_ssl.cli.data_folder import SPLITS, TOKENIZER_FILES
from av_ssl.media.files import write_atomically

ROOT = "/"
SPEAKER = "spk"  # suffix of the file with the speaker of each clip
LABELS = (SPEAKER, "emo")


@dataclass(frozen=True)
class Entry:
    """A clip in a list."""

    name: str
    line: str  # of the tsv
    transcript: str | None
    part: str
    labels: Mapping[str, str] = field(default_factory=dict)


def write_subset(out: Path, folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    """Lists of a part of the training clips, with the tokenizer of the whole."""
    write_lists(folder, lists)
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            write_atomically(folder / name, (out / name).read_bytes())


def write_lists(folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    """Write the lists of every split, and the classes that the training clips have of each kind of label."""
    for split in SPLITS:
        entries = lists[split]
        _write_lines(folder / f"{split}.tsv", [ROOT, *(entry.line for entry in entries)])
        _write_column(folder / f"{split}.wrd", [entry.transcript for entry in entries])
        for kind in LABELS:
            _write_column(folder / f"{split}.{kind}", [entry.labels.get(kind) for entry in entries])
        print(f"{folder / split}.tsv: {len(entries)} clips, {_labels(entries)}")
    for kind in LABELS:
        _write_classes(folder / f"classes.{kind}.txt", [entry.labels.get(kind) for entry in lists["train"]])


def _write_classes(path: Path, labels: Sequence[str | None]) -> None:
    """The classes of a column, sorted, where every clip has one."""
    names = {label for label in labels if label}
    _write_column(path, sorted(names) if all(labels) else [])


def _write_column(path: Path, values: Sequence[str | None]) -> None:
    known = [value for value in values if value]
    if known and len(known) == len(values):
        _write_lines(path, known)
    else:
        path.unlink(missing_ok=True)  # one of an earlier run would not fit the list


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _labels(entries: Sequence[Entry]) -> str:
    without = [entry.name for entry in entries if not entry.transcript]
    if len(without) == len(entries):
        return "no transcripts"
    if without:
        return f"{len(without)} without transcript (e.g. {without[0]}), so no .wrd"
    return "all with transcripts"
