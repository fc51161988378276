"""Trial lists in VoxCeleb's format: `LABEL UTTERANCE UTTERANCE` a line, label 1 for the same speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError
from av_ssl.media.corpus import AUDIO_SUFFIXES, VIDEO_SUFFIXES

PARTS = 3
"""Components of a path that name an utterance of VoxCeleb: speaker, video, number.  Corpora whose last three
are not unique have more."""
PUBLISHED = {
    "veri_test.txt": (18_860, 18_860),
    "veri_test2.txt": (18_802, 18_809),
    "list_test_all.txt": (290_743, 290_737),
    "list_test_hard.txt": (276_270, 276_266),
    "list_test_hard2.txt": (275_488, 275_406),
}
"""Target and non-target trials of VoxCeleb1's lists as published (O, O cleaned, E, H, H cleaned)."""


@dataclass(frozen=True)
class TrialList:
    """Trials between `utterances` (their keys, see `utterance_key`)."""

    utterances: list[str]
    first: NDArray[np.int64]
    """`[P]`, position in `utterances`."""
    second: NDArray[np.int64]
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)

    def among(self, known: Mapping[str, int]) -> TrialList:
        """The trials whose two utterances are keys of `known`; `utterances` stay as they are."""
        there = np.array([key in known for key in self.utterances], np.bool_)
        kept = there[self.first] & there[self.second]
        return TrialList(self.utterances, self.first[kept], self.second[kept], self.targets[kept])


def utterance_key(name: str, parts: int = PARTS) -> str:
    """What names an utterance in a trial list and in a manifest alike.

    The last components of a path, without suffix: speaker, video, number in VoxCeleb.

    >>> utterance_key("test/wav/id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        path = path.with_suffix("")
    return "/".join([part for part in path.parts if part != "/"][-parts:])


def key_parts(manifest: Path, clips: Sequence[Clip]) -> int:
    """How many components of their ids tell the clips of a manifest apart: three, or as many as it takes.

    Raises DataError, which names both, when two have one id but for suffixes.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        key = utterance_key(clip.id, len(clip.id))  # all components
        other = seen.setdefault(key, clip)
        if other is not clip:
            raise DataError(
                f"{manifest}: {other.id!r} on line {other.line} ({other.audio or other.video}) and "
                f"{clip.id!r} on line {clip.line} ({clip.audio or clip.video}) would both be {key!r} "
                "in a trial list; rename one"
            )
    parts = PARTS
    while len({utterance_key(key, parts) for key in seen}) < len(seen):
        parts += 1
    return parts


def read_trials(path: Path, parts: int = PARTS) -> TrialList:
    """Read a trial list; `parts` of each path are kept, see `key_parts`.

    Raises DataError naming the line when the file is missing or malformed, or when a list that goes by the
    name of one of VoxCeleb1's has not its number of trials.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); needed is a trial list, 'LABEL UTTERANCE UTTERANCE' a line"
        ) from error
    positions: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is no trial; needed is '1 UTTERANCE UTTERANCE' "
                "for the same speaker, 0 for two"
            )
        first, second = (
            positions.setdefault(utterance_key(name, parts), len(positions)) for name in fields[1:]
        )
        rows.append((first, second, fields[0] == "1"))
    if not rows:
        raise DataError(f"{path}: holds no trial; needed is 'LABEL UTTERANCE UTTERANCE' a line")
    first_side, second_side, targets = zip(*rows, strict=True)
    trials = TrialList(
        list(positions), np.array(first_side), np.array(second_side), np.array(targets, np.bool_)
    )
    _check_count(path, trials)
    return trials


def _check_count(path: Path, trials: TrialList) -> None:
    found = int(trials.targets.sum()), int((~trials.targets).sum())
    if PUBLISHED.get(path.name, found) != found:
        raise DataError(
            f"{path}: has {found[0]} target and {found[1]} non-target trials, VoxCeleb1's list of this name "
            f"{PUBLISHED[path.name][0]} and {PUBLISHED[path.name][1]}; get it again, or rename a list that "
            "is meant to be another"
        )
