"""GRID (Cooke et al., 2006): sN/CODE.mpg, six-word sentences, encoded in the file names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw, numbered_folders
from av_ssl.errors import DataError
from av_ssl.media.sources import VIDEO_SUFFIXES, ClipSource

# LipNet (Assael et al., 2016) tests on these speakers, two women and two men, and trains on the others.
UNSEEN = ("s1", "s2", "s20", "s22")
COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
DIGITS = {
    "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four",
    "5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine",
}  # fmt: skip
ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
CODE = re.compile(r"[blps][bgrw][abiw][a-z][z1-9][anps]")


class Grid(Corpus):
    """GRID; the id of a clip is speaker and sentence, such as s1/bbaf2n, whatever folders lie in between.

    Validation speakers are drawn from those that LipNet trains on.
    """

    name = "grid"
    title = "GRID"
    layout = "sN/CODE.mpg, e.g. s1/bbaf2n.mpg"
    draw = Draw(valid=0.1, test=0, by_speaker=True)

    def recognises(self, root: Path) -> bool:
        return bool(numbered_folders(root, "s"))

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for folder in numbered_folders(root, "s"):
            speaker = folder.name
            for video in sorted(folder.rglob("*")):
                if video.suffix.lower() not in VIDEO_SUFFIXES or video.name.startswith("."):
                    continue
                split = "test" if speaker in UNSEEN else None
                clip = CorpusClip(ClipSource(video), split, speaker, sentence(video))
                yield f"{speaker}/{video.stem}", clip


def sentence(video: Path) -> str:
    """The words that the name of a video encodes: bbaf2n is "bin blue at f two now"."""
    code = video.stem.lower()
    if not CODE.fullmatch(code):
        raise DataError(
            f"{video}: the name is not the code of a GRID sentence, such as bbaf2n; remove or rename the file"
        )
    command, colour, preposition, letter, digit, adverb = list(code)
    start = f"{COMMANDS[command]} {COLOURS[colour]} {PREPOSITIONS[preposition]}"
    return f"{start} {letter} {DIGITS[digit]} {ADVERBS[adverb]}"
