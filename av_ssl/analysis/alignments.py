"""What is said in each frame: phones with times from alignment files, and the visemes that they pass through.

An alignment is a JSON file `{id}.json` a clip, with `phones`, a list of [label, start, end] in seconds, and,
if it is known, `speaker`; the toy corpus has them, and any forced aligner's output is quickly brought into
this form.  A table of visemes has a line a viseme, or sequence of visemes: names, a tab, the phones of this
kind, separated by spaces; `-` in place of names stands for phones that the lips do not show:

    pbm	p b m
    ah ee	aI
    -	h
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError

Visemes = Mapping[str, tuple[str, ...]]
"""By phone: the visemes that it passes through, one after another; none for phones that lips do not show."""
UNSEEN = "-"


@dataclass(frozen=True)
class Phone:
    """A phone and when it sounds, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """Phones of a clip, in order; `speaker` is empty where it is unknown."""

    path: Path
    speaker: str
    phones: tuple[Phone, ...]

    def phones_at(self, times: NDArray[np.float32]) -> list[str | None]:
        """The phone that sounds at each time in seconds `[n]`; None where there is none."""
        return [None if phone is None else phone.label for phone in self._at(times)]

    def visemes_at(self, times: NDArray[np.float32], table: Visemes) -> list[str | None]:
        """The viseme at each time; a phone with several passes through them in equal parts.

        Raises DataError for a phone that the table lacks.
        """
        return [
            None if phone is None else self._viseme(phone, time, table)
            for phone, time in zip(self._at(times), times, strict=True)
        ]

    def _at(self, times: NDArray[np.float32]) -> list[Phone | None]:
        starts = np.array([phone.start for phone in self.phones])
        places = np.searchsorted(starts, times, side="right") - 1
        return [
            self.phones[place] if place >= 0 and time < self.phones[place].end else None
            for place, time in zip(places, times, strict=True)
        ]

    def _viseme(self, phone: Phone, time: float, table: Visemes) -> str | None:
        if phone.label not in table:
            raise DataError(
                f"{self.path}: phone {phone.label!r} has no viseme; add it to the table of visemes"
            )
        names = table[phone.label]
        if not names:
            return None
        part = (time - phone.start) / max(phone.end - phone.start, 1e-9)
        return names[min(int(part * len(names)), len(names) - 1)]


def read_alignment(path: Path) -> Alignment:
    """Read `{id}.json`; raises DataError when it is missing or malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); an alignment of each clip is needed, {{id}}.json in "
            "the folder of alignments"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error})") from error
    try:
        phones = [Phone(str(label), float(start), float(end)) for label, start, end in content["phones"]]
        speaker = str(content.get("speaker", ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f'{path}: needed is "phones", a list of [label, start, end] in seconds ({error})'
        ) from error
    return Alignment(path, speaker, tuple(sorted(phones, key=lambda phone: phone.start)))


def read_visemes(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a table of visemes; raises DataError when it is missing, or a line is malformed."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the table of visemes cannot be read ({error.strerror})") from error
    table: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        names, tab, phones = line.partition("\t")
        if not tab or not names.split() or not phones.split():
            raise DataError(
                f"{path}, line {number}: needed are visemes, a tab, phones; {UNSEEN} for no viseme"
            )
        for phone in phones.split():
            if phone in table:
                raise DataError(f"{path}, line {number}: phone {phone} is there twice; leave one out")
            table[phone] = () if names.strip() == UNSEEN else tuple(names.split())
    return table
