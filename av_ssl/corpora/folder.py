"""Any folder of videos, with optional text files beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw
from av_ssl.corpora.transcripts import read_transcript
from av_ssl.errors import DataError
from av_ssl.io import composed, existing, read_text
from av_ssl.media.sources import ClipSource, find_videos, passed_over

logger = logging.getLogger(__name__)

# Split by folder name; pretrain and trainval are LRS3's. Validation and test clips may be drawn from training
# folders, hence None.
FOLDER_SPLITS = {
    "train": None,
    "pretrain": None,
    "trainval": None,
    "valid": "valid",
    "val": "valid",
    "test": "test",
}


class Folder(Corpus):
    """A folder of talking-face videos; the id of a clip is its path without suffix.

    A folder named train, pretrain, trainval, valid, val or test decides the split of the clips below it; the
    outermost counts. ID.spk and ID.emo beside a video name its speaker and emotion.
    """

    name = "folder"
    title = "any corpus"
    layout = "videos, searched with subfolders"
    draw = Draw(valid=0.05, test=0.05)

    def recognises(self, root: Path) -> bool:
        return True

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        videos = find_videos(root, skip)
        others = passed_over(root, skip)
        if others:
            counts = ", ".join(f"{number} {suffix}" for suffix, number in sorted(others.items()))
            logger.warning("%s: files that are not read: %s (transcripts are read from ID.txt)", root, counts)
        for name, video in videos.items():
            folders = name.lower().split("/")[:-1]
            split = next((FOLDER_SPLITS[part] for part in folders if part in FOLDER_SPLITS), None)
            transcript = read_transcript(_beside(root, name, "txt"))
            speaker, emotion = (_label(_beside(root, name, kind)) for kind in ("spk", "emo"))
            labels = {"emo": emotion} if emotion else {}
            yield name, CorpusClip(ClipSource(video), split, speaker, transcript, labels=labels)


def _beside(root: Path, name: str, kind: str) -> Path:
    """The file of a clip with this suffix, in any case and Unicode form of its name."""
    places = [existing(root / f"{name}.{suffix}") for suffix in (kind, kind.upper())]
    return next((path for path in places if path.is_file()), places[0])


def _label(path: Path) -> str:
    """The one word of a label file; empty without a file."""
    if not path.is_file():
        return ""
    words = composed(read_text(path, "write one word")).split()
    if len(words) != 1:
        raise DataError(f"{path}: holds {len(words)} words; write the one that names the class")
    return words[0]
