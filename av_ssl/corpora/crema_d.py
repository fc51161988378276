"""CREMA-D (Cao et al., 2014): VideoFlash/NNNN_SSS_EMO_LV.flv, twelve sentences with acted emotions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw, rotating_folds
from av_ssl.errors import DataError
from av_ssl.media.sources import ClipSource

# Actor, sentence, emotion, level.
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX?)")
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SENTENCES = {
    "DFA": "don't forget a jacket",
    "IEO": "it's eleven o'clock",
    "IOM": "i'm on my way to the meeting",
    "ITH": "i think i have a doctor's appointment",
    "ITS": "i think i've seen this before",
    "IWL": "i would like a new alarm clock",
    "IWW": "i wonder what this is about",
    "MTI": "maybe tomorrow it will be cold",
    "TAI": "the airplane is almost full",
    "TIE": "that is exactly what happened",
    "TSI": "the surface is slick",
    "WSI": "we'll stop in a couple of minutes",
}
# Published fold lists leave these out as broken.
BROKEN = frozenset(["1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"])
# First actor of each of the five published folds (HiCMAE's lists), and the end.
FIRST_ACTORS = (1001, 1019, 1037, 1055, 1073, 1092)
ACTORS = [[str(actor) for actor in range(first, end)] for first, end in pairwise(FIRST_ACTORS)]


class CremaD(Corpus):
    """CREMA-D; the id of a clip is its file name, such as 1001_DFA_ANG_XX.

    Splits are drawn by actor. AudioWAV is used for videos without an audio stream.
    """

    name = "crema_d"
    title = "CREMA-D"
    layout = "VideoFlash/NNNN_SSS_EMO_LV.flv"
    draw = Draw(valid=0.1, test=0.2, by_speaker=True)
    folds = rotating_folds("p5", ACTORS)

    def recognises(self, root: Path) -> bool:
        return (root / "VideoFlash").is_dir()

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        sounds = root / "AudioWAV"
        apart = sounds.is_dir()
        for video in sorted((root / "VideoFlash").glob("*.flv")):
            fields = NAME.fullmatch(video.stem)
            if fields is None or fields[2] not in SENTENCES or fields[3] not in EMOTIONS:
                raise DataError(f"{video}: is not named as CREMA-D does, e.g. 1001_DFA_ANG_XX.flv")
            if video.stem in BROKEN:
                continue
            source = ClipSource(video, sounds / f"{video.stem}.wav" if apart else None)
            labels = {"emo": fields[3]}
            yield video.stem, CorpusClip(source, None, fields[1], SENTENCES[fields[2]], labels=labels)
