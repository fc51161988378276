"""LRS2 and LRS3: a text file beside every video; long clips with word times in ``pretrain``.

LRS2-BBC (Chung et al., 2017): {main,pretrain}/ID/NNNNN.{mp4,txt} and the lists of its splits.

LRS3-TED (Afouras, Chung, Zisserman, 2018): {pretrain,trainval,test}/ID/NNNNN.{mp4,txt}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from av_ssl.corpora.corpus import RESTORE, Corpus, CorpusClip, Draw
from av_ssl.corpora.transcripts import LONGEST, cut_at_pauses, read_word_times, require_transcript
from av_ssl.errors import DataError
from av_ssl.io import read_text
from av_ssl.media.sources import ClipSource

PRETRAIN = "pretrain"


def read_clip(video: Path, name: str, split: str | None) -> Iterator[tuple[str, CorpusClip]]:
    """The clip PART/ID/NNNNN; of a long one in ``pretrain`` its pieces, PART/ID/NNNNN_00 and so on."""
    part, speaker, _ = name.split("/")
    text = video.with_suffix(".txt")
    transcript = require_transcript(text)
    words = read_word_times(text) if part == PRETRAIN else []
    if not words or words[-1].end <= LONGEST:
        yield name, CorpusClip(ClipSource(video), split, speaker, transcript, part)
        return
    for number, piece in enumerate(cut_at_pauses(words)):
        source = ClipSource(video, span=piece.span, times=text, recording=name)
        yield f"{name}_{number:02d}", CorpusClip(source, split, speaker, piece.transcript, part)


INNER = "mvlrs_v1"  # folder in the archive that holds main and pretrain
LISTS = {
    "pretrain": (PRETRAIN, "train"),
    "train": ("main", "train"),
    "val": ("main", "valid"),
    "test": ("main", "test"),
}


class Lrs2(Corpus):
    """LRS2; the id of a clip is its path, such as main/6330311066473698535/00011.

    The lists of the corpus decide the splits. A line names a clip of main (in pretrain.txt, of pretrain); the
    rest of the line, such as "NF MV" in test.txt, is ignored.
    """

    name = "lrs2"
    title = "LRS2"
    layout = "main/ID/NNNNN.mp4, pretrain/ID/NNNNN.mp4, their NNNNN.txt, and train.txt, val.txt, test.txt"
    draw = Draw(valid=0, test=0)
    subsets: ClassVar[Mapping[str, str]] = {"main_data": "main"}

    def recognises(self, root: Path) -> bool:
        return (root / "main").is_dir() or (root / INNER / "main").is_dir()

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        folder = root if (root / "main").is_dir() else root / INNER
        for list_name, (part, split) in LISTS.items():
            if part == PRETRAIN and not (folder / PRETRAIN).is_dir():
                continue
            path = next(
                (p for p in (root / f"{list_name}.txt", folder / f"{list_name}.txt") if p.is_file()), None
            )
            if path is None:
                raise DataError(
                    f"{root / list_name}.txt: is missing; it lists the {split} clips of {part} and "
                    "comes with the corpus"
                )
            for video in _listed(path, folder / part):
                yield from read_clip(video, f"{part}/{video.parent.name}/{video.stem}", split)


def _listed(path: Path, folder: Path) -> Iterator[Path]:
    for number, line in enumerate(read_text(path, RESTORE).split("\n"), start=1):
        if not line.strip():
            continue
        clip = line.split()[0]
        video = folder / f"{clip}.mp4"
        if clip.count("/") != 1 or not video.is_file():
            raise DataError(
                f"{path}, line {number}: there is no video {video}; "
                "unpack the entire corpus or remove the line"
            )
        yield video


# None: validation clips are drawn from trainval.
SPLIT_OF_PART = {PRETRAIN: "train", "trainval": None, "test": "test"}


class Lrs3(Corpus):
    """LRS3; the id of a clip is its path, such as trainval/0af00UcTOSc/50001.

    1200 clips of trainval are for validation, as in AV-HuBERT (Shi et al., 2022), drawn by seed or given as a
    list of ids.
    """

    name = "lrs3"
    title = "LRS3"
    layout = "pretrain/ID/NNNNN.mp4, trainval/ID/NNNNN.mp4 and test/ID/NNNNN.mp4, each with its NNNNN.txt"
    draw = Draw(valid=1200, test=0)
    subsets: ClassVar[Mapping[str, str]] = {"30h_data": "trainval"}

    def recognises(self, root: Path) -> bool:
        return (root / "trainval").is_dir()

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for part, split in SPLIT_OF_PART.items():
            for video in sorted((root / part).glob("*/*.mp4")):
                name = f"{part}/{video.parent.name}/{video.stem}"
                yield from read_clip(video, name, split)
