"""Any folder of videos, with optional text files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw
from av_ssl.corpora.transcripts import read_transcript
from av_ssl.errors import DataError
from av_ssl.media.sources import ClipSource, find_videos

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
        for name, video in find_videos(root, skip).items():
            folders = name.lower().split("/")[:-1]
            split = next((FOLDER_SPLITS[part] for part in folders if part in FOLDER_SPLITS), None)
            transcript = read_transcript(root / f"{name}.txt")
            speaker, emotion = (_label(root / f"{name}.{kind}") for kind in ("spk", "emo"))
            labels = {"emo": emotion} if emotion else {}
            yield name, CorpusClip(ClipSource(video), split, speaker, transcript, labels=labels)


def _label(path: Path) -> str:
    """The one word of a label file; empty without a file."""
    if not path.is_file():
        return ""
    words = path.read_text(encoding="utf-8", errors="replace").split()
    if len(words) != 1:
        raise DataError(f"{path}: holds {len(words)} words; write the one that names the class")
    return words[0]
