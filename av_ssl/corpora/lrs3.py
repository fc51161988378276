"""LRS3-TED (Afouras, Chung, Zisserman, 2018): {pretrain,trainval,test}/ID/NNNNN.{mp4,txt}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw
from av_ssl.corpora.lrs import PRETRAIN, read_clip

# None: validation clips are drawn from trainval.
SPLIT_OF_PART = {PRETRAIN: "train", "trainval": None, "test": "test"}


class Lrs3(Corpus):
    """LRS3; the id of a clip is its path, e.g. trainval/0af00UcTOSc/50001.

    1200 clips of trainval are for validation, as in AV-HuBERT (Shi et al., 2022); they are drawn by seed, or
    given as a list of ids.
    """

    name = "lrs3"
    title = "LRS3"
    layout = "pretrain/ID/NNNNN.mp4, trainval/ID/NNNNN.mp4 and test/ID/NNNNN.mp4, each with its NNNNN.txt"
    draw = Draw(valid=1200, test=0)
    subsets: ClassVar[Mapping[str, str]] = {"30h_data": "trainval"}

    def recognises(self, root: Path) -> bool:
        """A folder trainval tells it from LRS2, whose clips lie in main."""
        return (root / "trainval").is_dir()

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        """Clips of the parts that are there."""
        for part, split in SPLIT_OF_PART.items():
            for video in sorted((root / part).glob("*/*.mp4")):
                name = f"{part}/{video.parent.name}/{video.stem}"
                yield from read_clip(video, name, split)
