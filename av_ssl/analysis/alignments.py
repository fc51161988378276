"""What is said in each frame: phones or words with times from alignment files, and the visemes of phones.

An alignment is a file per clip: ``{id}.json`` with ``phones``, a list of [label, start, end] in seconds, and,
if it is known, ``speaker``; or ``{id}.align`` of GRID, lines of start, end and word, whose speaker is the
id's first folder. A table of visemes has a line for each viseme, or sequence of visemes: names, a
tab, the phones of this kind; ``-`` in place of names stands for phones that the lips do not show:

    pbm	p b m
    ah ee	aI
    -	h
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.analysis.features import FeatureFolder, Floats
from av_ssl.errors import DataError
from av_ssl.io import read_json, read_text

Visemes = Mapping[str, tuple[str, ...]]
"""By phone: the visemes that it passes through, one after another; none for phones that lips do not show."""
UNSEEN = "-"
GRID_UNITS = 25_000
"""A second in the files of GRID (Cooke et al., 2006)."""
GRID_PAUSES = ("sil", "sp")


@dataclass(frozen=True)
class Unit:
    label: str
    start: float  # seconds
    end: float


@dataclass(frozen=True)
class Alignment:
    """Phones or words of a clip, in order; `speaker` is empty where it is unknown."""

    path: Path
    speaker: str
    units: tuple[Unit, ...]
    kind: str = "phone"  # or word

    def labels_at(self, times: NDArray[np.float32]) -> list[str | None]:
        """The phone or word at each time in seconds ``[n]``; None where there is none."""
        return [None if unit is None else unit.label for unit in self._at(times)]

    def visemes_at(self, times: NDArray[np.float32], table: Visemes) -> list[str | None]:
        """The viseme at each time; a phone with several passes through them in equal parts.

        Raises DataError for a phone that the table lacks.
        """
        return [
            None if phone is None else self._viseme(phone, time, table)
            for phone, time in zip(self._at(times), times, strict=True)
        ]

    def _at(self, times: NDArray[np.float32]) -> list[Unit | None]:
        starts = np.array([unit.start for unit in self.units])
        places = np.searchsorted(starts, times, side="right") - 1
        return [
            self.units[place] if place >= 0 and time < self.units[place].end else None
            for place, time in zip(places, times, strict=True)
        ]

    def _viseme(self, phone: Unit, time: float, table: Visemes) -> str | None:
        if phone.label not in table:
            raise DataError(
                f"{self.path}: phone {phone.label!r} has no viseme; add it to the table of visemes"
            )
        names = table[phone.label]
        if not names:
            return None
        part = (time - phone.start) / max(phone.end - phone.start, 1e-9)
        return names[min(int(part * len(names)), len(names) - 1)]


def read_alignment(folder: Path, clip: str) -> Alignment:
    """Read the alignment of a clip by its id; raises DataError when it is missing or malformed."""
    path = folder / f"{clip}.align"
    if path.is_file():
        speaker = clip.split("/")[0] if "/" in clip else ""
        return Alignment(path, speaker, tuple(_grid_words(path)), "word")
    fix = f"each clip needs an alignment: {clip}.json, or GRID's {clip}.align, in {folder}"
    path = path.with_name(f"{path.stem}.json")
    content = read_json(path, fix)
    try:
        phones = [Unit(str(label), float(start), float(end)) for label, start, end in content["phones"]]
        speaker = str(content.get("speaker", ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f'{path}: needed is "phones", a list of [label, start, end] ({error})') from error
    return Alignment(path, speaker, tuple(sorted(phones, key=lambda phone: phone.start)))


def _grid_words(path: Path) -> Iterator[Unit]:
    text = read_text(path, "copy GRID's file again", "the alignment cannot be read")
    for number, line in enumerate(text.splitlines(), start=1):
        match line.split():
            case [start, end, word] if start.isdecimal() and end.isdecimal():
                if word not in GRID_PAUSES:
                    yield Unit(word, int(start) / GRID_UNITS, int(end) / GRID_UNITS)
            case []:
                pass
            case _:
                raise DataError(
                    f"{path}, line {number}: needed are start, end (of which {GRID_UNITS} are a second) and "
                    f"word, not {line[:40]!r}"
                )


def read_visemes(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a table of visemes; raises DataError when it is missing, or a line is malformed."""
    text = read_text(path, "name a table of visemes", "the table of visemes cannot be read")
    table: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        names, tab, phones = line.partition("\t")
        if not tab or not names.split() or not phones.split():
            raise DataError(f"{path}, line {number}: needed are visemes (or {UNSEEN}), a tab, phones")
        for phone in phones.split():
            if phone in table:
                raise DataError(f"{path}, line {number}: phone {phone} is there twice; leave one out")
            table[phone] = () if names.strip() == UNSEEN else tuple(names.split())
    return table


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of which a phone or word, and where asked for a viseme, is known."""

    features: Floats  # [N, L, C]
    labels: dict[str, NDArray[np.str_]]  # by kind, ``phone`` or ``word``, and ``viseme``: [N]
    speakers: NDArray[np.str_]  # [N]; the clip where the speaker is unknown

    def __len__(self) -> int:
        return len(self.features)

    def of_classes(self, names: Sequence[str]) -> LabelledFrames:
        """Those of some phones or words; raises DataError for one that no frame has."""
        spoken = next(iter(self.labels.values()))
        for name in names:
            if name not in spoken:
                raise DataError(f"class {name!r} is not said in any clip")
        return self._rows(np.flatnonzero(np.isin(spoken, names)))

    def drawn(self, count: int | None, seed: int) -> LabelledFrames:
        """So many at random, in order; all where there are fewer, or for None."""
        if count is None or count >= len(self):
            return self
        return self._rows(np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)))

    def _rows(self, rows: NDArray[np.int64]) -> LabelledFrames:
        labels = {kind: values[rows] for kind, values in self.labels.items()}
        return LabelledFrames(self.features[rows], labels, self.speakers[rows])


def labelled_frames(
    folder: FeatureFolder,
    alignments: Path,
    visemes: Visemes | None = None,
    clips: Sequence[str] | None = None,
) -> LabelledFrames:
    """Frames of a folder's clips in which something is said.

    Args:
        folder: the features.
        alignments: folder with ``{id}.json`` or ``{id}.align`` of each clip.
        visemes: by phone; None: phones or words alone.
        clips: ids; None: all.  Folders that are compared get the clips that all of them have.

    Raises:
        DataError: an alignment is missing, some have phones and others words, a phone lacks its viseme, or no
            frame has a label.
    """
    features, speakers = [], []
    labels: dict[str, list[str]] = {}
    for clip in folder.clips if clips is None else clips:
        alignment = read_alignment(alignments, clip)
        times = folder.times(clip)
        found = {alignment.kind: alignment.labels_at(times)}
        if visemes is not None:
            found["viseme"] = alignment.visemes_at(times, visemes)
        labels = labels or {kind: [] for kind in found}
        if labels.keys() != found.keys():
            raise DataError(f"{alignment.path}: holds {alignment.kind}s, other clips have none of them")
        known = np.array([all(row) for row in zip(*found.values(), strict=True)], bool)
        features.append(np.asarray(folder.features(clip)[known]))
        for kind, values in found.items():
            labels[kind] += [value for value, here in zip(values, known, strict=True) if here and value]
        speakers += [alignment.speaker or clip] * int(known.sum())
    if not speakers:
        raise DataError(f"{folder.path}: no frame of it has a phone in {alignments}")
    arrays = {kind: np.array(values) for kind, values in labels.items()}
    return LabelledFrames(np.concatenate(features), arrays, np.array(speakers))


def shared_clips(folders: Sequence[FeatureFolder]) -> list[str]:
    """Ids of the clips that all folders have; raises DataError when there are none."""
    first, *others = folders
    clips = [clip for clip in first.clips if all(clip in other.clips for other in others)]
    if not clips:
        raise DataError(f"{', '.join(str(folder.path) for folder in folders)}: have no clip in common")
    return clips


def titles(folders: list[Path]) -> list[str]:
    """Short distinct names of folders: the last parts of their paths."""
    paths, parts = [path.absolute() for path in folders], 1
    while len({path.parts[-parts:] for path in paths}) < len(set(paths)):
        parts += 1
    return ["/".join(path.parts[-parts:]) for path in paths]
