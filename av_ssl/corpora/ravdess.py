"""RAVDESS (Livingstone, Russo, 2018): Actor_NN/MM-VV-EE-II-SS-RR-AA.mp4, acted emotions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw, Fold, rotating_folds
from av_ssl.errors import DataError
from av_ssl.media.sources import ClipSource

# Modality, channel, emotion, intensity, statement, repetition, actor.
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
AUDIO_VISUAL, SPEECH = "01", "01"  # 02 is video only, 03 audio only; channel 02 is song
EMOTION_NAMES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
EMOTIONS = {f"{number:02d}": name for number, name in enumerate(EMOTION_NAMES, start=1)}
# Six folds of consecutive actors (HiCMAE's lists), five of Luna-Jimenez et al. (2022), the single division of
# Chumachenko et al. (2022).
CONSECUTIVE = [[f"{actor:02d}" for actor in range(first, first + 4)] for first in range(1, 25, 4)]
LUNA_JIMENEZ = [
    line.split()
    for line in ("02 05 14 15 16", "03 06 07 13 18", "10 11 12 19 20", "08 17 21 23 24", "01 04 09 22")
]
CHUMACHENKO = Fold(test=frozenset(["05", "10", "16", "19"]), valid=frozenset(["11", "13", "18", "22"]))
FOLDS = {**rotating_folds("p6", CONSECUTIVE), **rotating_folds("p5", LUNA_JIMENEZ), "p1": CHUMACHENKO}
STATEMENTS = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}


class Ravdess(Corpus):
    """RAVDESS, spoken sentences with audio and video; an id is for example Actor_01/01-01-05-01-02-02-01.

    Splits are drawn by actor: emotions of a known face and voice are much easier to recognise.
    """

    name = "ravdess"
    title = "RAVDESS"
    layout = "Actor_NN/01-01-EE-II-SS-RR-AA.mp4, perhaps in Video_Speech_Actor_NN"
    draw = Draw(valid=0.15, test=0.15, by_speaker=True)
    folds = FOLDS

    def recognises(self, root: Path) -> bool:
        return any(root.glob("Actor_*")) or any(root.glob("Video_*/Actor_*"))

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for video in sorted([*root.glob("Actor_*/*.mp4"), *root.glob("Video_*/Actor_*/*.mp4")]):
            fields = NAME.fullmatch(video.stem)
            if fields is None:
                raise DataError(f"{video}: is not named as RAVDESS does, e.g. 01-01-05-01-02-02-01.mp4")
            modality, channel, emotion, _, statement, _, actor = fields.groups()
            if (modality, channel) != (AUDIO_VISUAL, SPEECH):
                continue
            if emotion not in EMOTIONS or statement not in STATEMENTS:
                raise DataError(
                    f"{video}: has emotion {emotion} and statement {statement}; "
                    "RAVDESS has emotions 01 to 08 and statements 01 and 02"
                )
            labels = {"emo": EMOTIONS[emotion]}
            clip = CorpusClip(ClipSource(video), None, actor, STATEMENTS[statement], labels=labels)
            yield f"Actor_{actor}/{video.stem}", clip
