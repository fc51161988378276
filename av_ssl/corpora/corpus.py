"""What every corpus driver says about its clips, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from av_ssl.errors import DataError
from av_ssl.media.corpus import VIDEO_SUFFIXES, ClipSource


@dataclass(frozen=True)
class CorpusClip:
    """A clip before it is cropped.

    split: train, valid or test where the corpus decides; None is for training unless it is drawn for
    validation or test. speaker: "" where the corpus does not say. part: the part of the corpus, e.g.
    "pretrain". labels: further labels by kind, e.g. {"emo": "ANG"}.
    """

    source: ClipSource
    split: str | None
    speaker: str = ""
    transcript: str | None = None
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """How much of the undecided clips becomes validation and test data: a share below 1, or a number.

    by_speaker: counts speakers instead of clips, so that no voice is in two splits.
    """

    valid: float
    test: float
    by_speaker: bool = False


@dataclass(frozen=True)
class Fold:
    """A published division by speaker: whose clips are for testing and validation; the others train."""

    test: frozenset[str]
    valid: frozenset[str]

    def split(self, clip: CorpusClip) -> str:
        """train, valid or test."""
        if clip.speaker in self.test:
            return "test"
        return "valid" if clip.speaker in self.valid else "train"


class Corpus(ABC):
    """A corpus in the layout in which its owners ship it."""

    name: ClassVar[str]
    title: ClassVar[str]
    layout: ClassVar[str]
    """Path of a clip below the folder, for messages."""
    draw: ClassVar[Draw]
    subsets: ClassVar[Mapping[str, str]] = {}
    """Folder of each further training list, and the part that it holds."""
    folds: ClassVar[Mapping[str, Fold]] = {}
    """Published divisions by name, e.g. p6-1."""
    audio_only: ClassVar[bool] = False
    """Whether there is nothing to see and so to crop: sources are wav files, 16 kHz mono."""

    @abstractmethod
    def recognises(self, root: Path) -> bool:
        """Whether `root` looks like this corpus; reads folder names only."""

    @abstractmethod
    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        """Ids and clips below `root`, without the folder `skip`; raises DataError for a broken corpus."""

    def clip_id(self, text: str) -> str:
        """Id of the clip that a line of a list of ids means."""
        path, dot, suffix = text.strip().rpartition(".")
        return path if f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else text.strip()

    def read(self, root: Path, skip: Path | None = None) -> dict[str, CorpusClip]:
        """All clips by id, sorted; raises DataError when there is none or an id comes twice."""
        clips: dict[str, CorpusClip] = {}
        for name, clip in self.find(root, skip):
            if name in clips:
                raise DataError(
                    f"{clip.source.video}: has the same id ({name}) as {clips[name].source.video}; "
                    "keep one of the two"
                )
            clips[name] = clip
        if not clips:
            raise DataError(f"{root}: holds no clip of {self.title}; expected {self.layout}")
        return dict(sorted(clips.items()))


def numbered_folders(root: Path, prefix: str) -> list[Path]:
    """Folders of `root` called `prefix` and a number, e.g. s1, s2, s10, by number."""
    folders = [
        path for path in root.glob(f"{prefix}*") if path.name[len(prefix) :].isdecimal() and path.is_dir()
    ]
    return sorted(folders, key=lambda path: int(path.name[len(prefix) :]))


def rotating_folds(prefix: str, parts: Sequence[Iterable[str]]) -> dict[str, Fold]:
    """`prefix-1`, `prefix-2`, ...: part k of the speakers tests, the next one (cyclically) validates.

    Lists in circulation often name no validation part; that the next one takes its place is our choice.
    """
    sets = [frozenset(part) for part in parts]
    return {
        f"{prefix}-{number}": Fold(test, sets[number % len(sets)])
        for number, test in enumerate(sets, start=1)
    }
