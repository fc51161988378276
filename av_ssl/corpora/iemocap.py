"""IEMOCAP (Busso et al., 2008): dialogues of two actors, cut into utterances with emotions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw, numbered_folders, rotating_folds
from av_ssl.errors import DataError
from av_ssl.media.sources import ClipSource

# Times in seconds, utterance, emotion: "[6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5, 2.5, 2.5]".
UTTERANCE = re.compile(r"\[(\d+\.\d+) - (\d+\.\d+)\]\t(\S+)\t([a-z]{3})\t.*")
NAME = re.compile(r"(Ses\d\d)[FM]_\w+_([FM])[\dX]+")
TRANSCRIPT = re.compile(r"(\S+) \[[\d.]+-[\d.]+\]: ?(.*)")
# The usual four classes: excitement counts as happiness, other emotions are left out.
EMOTIONS = {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"}
SESSIONS = [[f"Ses{number:02d}{actor}" for actor in "FM"] for number in range(1, 6)]


class Iemocap(Corpus):
    """IEMOCAP, utterances of four emotions; an id is for example Ses01F_impro01_M000.

    The first letter (F or M) of an id names the actor with markers, the last one the speaker. Videos show
    both actors; the one whose mouth moves with the audio is cropped.
    """

    name = "iemocap"
    title = "IEMOCAP"
    layout = "SessionN/dialog/{avi/DivX,EmoEvaluation,transcriptions}/DIALOGUE.{avi,txt,txt}"
    draw = Draw(valid=0.2, test=0.2, by_speaker=True)
    folds = rotating_folds("session", SESSIONS)

    def recognises(self, root: Path) -> bool:
        return any(_evaluations(folder).is_dir() for folder in numbered_folders(root, "Session"))

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for session in numbered_folders(root, "Session"):
            for evaluation in sorted(_evaluations(session).glob("Ses*.txt")):
                yield from _dialogue(session, evaluation)


def _evaluations(session: Path) -> Path:
    return session / "dialog" / "EmoEvaluation"


def _dialogue(session: Path, evaluation: Path) -> Iterator[tuple[str, CorpusClip]]:
    dialogue = evaluation.stem
    video = session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
    if not video.is_file():
        raise DataError(
            f"{evaluation}: there is no video {video} of this dialogue; add it, or remove the file"
        )
    sound = session / "dialog" / "wav" / f"{dialogue}.wav"
    words = _transcripts(session / "dialog" / "transcriptions" / f"{dialogue}.txt")
    for start, end, name, emotion in _utterances(evaluation):
        source = ClipSource(video, sound if sound.is_file() else None, (start, end), evaluation, dialogue)
        speaker = "".join(NAME.fullmatch(name).groups())  # type: ignore[union-attr]  # checked as it was read
        yield name, CorpusClip(source, None, speaker, words.get(name), labels={"emo": emotion})


def _utterances(evaluation: Path) -> Iterator[tuple[float, float, str, str]]:
    """Start and end in seconds, id and emotion of the utterances of the four classes."""
    lines = evaluation.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        fields = UTTERANCE.fullmatch(line)
        if fields is None:
            continue  # ratings of single evaluators
        start, end, name, emotion = float(fields[1]), float(fields[2]), fields[3], fields[4]
        if NAME.fullmatch(name) is None or end <= start:
            raise DataError(
                f"{evaluation}, line {number}: {name} from {start} to {end} s is no utterance of IEMOCAP, "
                "such as Ses01F_impro01_F000; get the file again"
            )
        if emotion in EMOTIONS:
            yield start, end, name, EMOTIONS[emotion]


def _transcripts(path: Path) -> dict[str, str]:
    """Transcripts, lower case, by utterance; empty without the file."""
    if not path.is_file():
        return {}
    found = map(TRANSCRIPT.fullmatch, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {match[1]: " ".join(match[2].lower().split()) for match in found if match}
