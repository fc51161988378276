"""The interface of a corpus driver, lists of clip ids, and the choice of clips for each split."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from av_ssl.errors import DataError
from av_ssl.io import composed, read_text
from av_ssl.layout import NOT_MANIFESTS, SPLITS
from av_ssl.media.sources import VIDEO_SUFFIXES, ClipSource

RESTORE = "restore the original file of the corpus"


@dataclass(frozen=True)
class CorpusClip:
    """A clip before it is cropped.

    Args:
        source: its files.
        split: ``train``, ``valid`` or ``test`` where the corpus decides; None is training data unless it is
            drawn for validation or test.
        speaker: empty where the corpus does not name one.
        transcript: lower case; None where there is none.
        part: part of the corpus, such as ``pretrain``.
        labels: further labels by kind, such as ``{"emo": "ANG"}``.
    """

    source: ClipSource
    split: str | None
    speaker: str = ""
    transcript: str | None = None
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """How much of the undecided clips becomes validation and test data: shares below 1, or numbers."""

    valid: float
    test: float
    by_speaker: bool = False  # count speakers instead of clips, so that no speaker is in two splits


@dataclass(frozen=True)
class Fold:
    """A published division by speaker: test and validation speakers; the others are for training."""

    test: frozenset[str]
    valid: frozenset[str]

    def split(self, clip: CorpusClip) -> str:
        if clip.speaker in self.test:
            return "test"
        return "valid" if clip.speaker in self.valid else "train"


class Corpus(ABC):
    """A corpus in the layout in which its owners ship it."""

    name: ClassVar[str]
    title: ClassVar[str]
    layout: ClassVar[str]
    """Path of a clip below the folder, for error messages."""
    draw: ClassVar[Draw]
    subsets: ClassVar[Mapping[str, str]] = {}
    """Folder of each additional training list, and the part of the corpus that it holds."""
    folds: ClassVar[Mapping[str, Fold]] = {}
    """Published divisions by name, such as p6-1."""
    audio_only: ClassVar[bool] = False
    """Whether the corpus has no videos, so nothing is cropped: sources are wav files, 16 kHz mono."""

    @abstractmethod
    def recognises(self, root: Path) -> bool:
        """Whether ``root`` looks like this corpus, by folder names only."""

    @abstractmethod
    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        """Ids and clips below ``root``, without the folder ``skip``; raises DataError for a broken corpus."""

    def clip_id(self, text: str) -> str:
        """Id of the clip that a line of an id list names."""
        path, dot, suffix = text.strip().rpartition(".")
        return path if f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else text.strip()

    def read(self, root: Path, skip: Path | None = None) -> dict[str, CorpusClip]:
        """All clips by id, sorted; raises DataError when there is none or two have one id."""
        clips: dict[str, CorpusClip] = {}
        videos: dict[str, Path] = {}
        for name, clip in self.find(root, skip):
            other = videos.get(composed(name))
            if other is not None:
                raise DataError(
                    f"{clip.source.video}: has the same id ({name}) as {other}; keep one of the two"
                )
            clips[name], videos[composed(name)] = clip, clip.source.video
        if not clips:
            raise DataError(f"{root}: holds no clip of {self.title}; expected {self.layout}")
        return dict(sorted(clips.items()))


def numbered_folders(root: Path, prefix: str) -> list[Path]:
    """Folders of ``root`` named ``prefix`` and a number, in numerical order: s1, s2, s10."""
    folders = [
        path for path in root.glob(f"{prefix}*") if path.name[len(prefix) :].isdecimal() and path.is_dir()
    ]
    return sorted(folders, key=lambda path: int(path.name[len(prefix) :]))


def rotating_folds(prefix: str, parts: Sequence[Iterable[str]]) -> dict[str, Fold]:
    """Folds ``prefix-1``, ``prefix-2``, ...: part k of the speakers is for test, the next one for validation.

    Published lists often name no validation part; taking the next part (cyclically) is our choice.
    """
    sets = [frozenset(part) for part in parts]
    return {
        f"{prefix}-{number}": Fold(test, sets[number % len(sets)])
        for number, test in enumerate(sets, start=1)
    }


def read_ids(path: Path, corpus: Corpus, clips: Iterable[str] = ()) -> dict[str, int]:
    """Ids of a list, one a line as the corpus writes them, and their line numbers.

    Args:
        path: the list.
        corpus: driver.
        clips: ids of the corpus; one that the list has in another Unicode form is returned as it is here.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or an id is listed twice.
    """
    spelled = {composed(name): name for name in clips}
    ids: dict[str, int] = {}
    for number, line in enumerate(read_text(path, "list clip ids in it, one a line").split("\n"), start=1):
        if not line.strip():
            continue
        name = corpus.clip_id(line)
        name = spelled.get(composed(name), name)
        if name in ids:
            raise DataError(f"{path}, line {number}: {name} is also on line {ids[name]}; remove one of them")
        ids[name] = number
    if not ids:
        raise DataError(f"{path}: lists no clip; write one id a line, e.g. as in clips.tsv")
    return ids


def read_id_lists(folder: Path, corpus: Corpus, clips: Collection[str]) -> dict[str, dict[str, int]]:
    """The lists ``NAME.txt`` of a folder by name, such as train, valid or labelled_100; see `read_ids`.

    Raises:
        DataError: there is none, one has a name that is taken, or an id that is no clip of the corpus.
    """
    lists: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("*.txt")):
        if NOT_MANIFESTS.fullmatch(path.stem):
            raise DataError(f"{path}: a data folder has another {path.stem}.tsv; rename this list")
        lists[path.stem] = read_ids(path, corpus, clips)
        require_known(path, lists[path.stem], clips)
    if not lists:
        raise DataError(f"{folder}: holds no list; write train.txt, valid.txt and so on, one id a line")
    return lists


def require_known(path: Path, ids: dict[str, int], clips: Container[str]) -> None:
    """Raise DataError with the line of the first id that is no clip of the corpus."""
    for name, number in ids.items():
        if name not in clips:
            raise DataError(f"{path}, line {number}: the corpus has no clip {name}; correct the line")


SEVERAL = 3  # clips or speakers: from here on a share above 0 gives at least one
LARGEST_SHARE = 0.1  # limit on a default number of validation clips in a small corpus


def assign_splits(
    clips: Mapping[str, CorpusClip], draw: Draw, seed: int, valid_ids: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Divide clips into splits: the ids of each, sorted. Where the corpus decides, its split is kept.

    Args:
        clips: by id.
        draw: how many of the other clips (or their speakers) are drawn at random for a split that the corpus
            does not have; the rest is for training, and must not be empty.
        seed: of the random choice.
        valid_ids: exactly these are for validation.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    undecided = []
    for name in sorted(clips):
        split = clips[name].split
        if valid_ids is not None and name in valid_ids:
            splits["valid"].append(name)
        elif split is None:
            undecided.append(name)
        else:
            splits[split].append(name)
    units = _units(undecided, clips, draw.by_speaker)
    order = sorted(units)
    random.Random(seed).shuffle(order)
    for split, wanted in (("valid", draw.valid), ("test", draw.test)):
        if splits[split] or (split == "valid" and valid_ids is not None):
            continue
        count = _count(wanted, len(units))
        splits[split] = sorted(name for unit in order[:count] for name in units[unit])
        order = order[count:]
    splits["train"] = sorted([*splits["train"], *(name for unit in order for name in units[unit])])
    if not splits["train"] and not undecided:
        raise DataError(
            f"no clip is left for training: the corpus itself assigns all {len(clips)} to test or "
            f"validation, e.g. {next(iter(clips))}; add clips that it does not (GRID: of other speakers)"
        )
    if not splits["train"]:
        raise DataError(
            f"no clip is left for training: {len(splits['valid'])} are for validation, "
            f"{len(splits['test'])} for test; add clips or lower --valid and --test"
        )
    return splits


def capped(draw: Draw, clips: Mapping[str, CorpusClip]) -> Draw:
    """``draw`` with at most a tenth of the undecided clips for validation: a corpus may be incomplete."""
    if draw.valid < 1:
        return draw
    undecided = [name for name, clip in clips.items() if clip.split is None]
    most = int(LARGEST_SHARE * len(_units(undecided, clips, draw.by_speaker)))
    return Draw(min(draw.valid, max(1, most)), draw.test, draw.by_speaker)


def _units(names: Sequence[str], clips: Mapping[str, CorpusClip], by_speaker: bool) -> dict[str, list[str]]:
    """Units of the random choice: single clips, or speakers with their clips."""
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(clips[name].speaker if by_speaker else name, []).append(name)
    return units


def _count(wanted: float, units: int) -> int:
    if not 0 < wanted < 1:
        return int(wanted)
    count = round(wanted * units)
    return max(1, count) if units >= SEVERAL else count
