"""VoxCeleb1 (Nagrani, Chung, Zisserman, 2017): wav/idNNNNN/VIDEO/NNNNN.wav, sound only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw
from av_ssl.media.corpus import ClipSource

FOLDERS = ("wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav")
SPEAKER = re.compile(r"id1\d{4}")
TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10270, 10310))
"""The 40 speakers of the verification trials (those whose names begin with E)."""


class VoxCeleb1(Corpus):
    """VoxCeleb1; the id of a clip is that of the trial lists, e.g. id10270/5r0dWxy17C8/00001.

    It is given out without its videos: nothing is cropped, and lists have an empty video column.
    """

    name = "voxceleb1"
    title = "VoxCeleb1"
    layout = "wav/idNNNNN/VIDEO/NNNNN.wav, perhaps in dev and test, or vox1_dev_wav and vox1_test_wav"
    draw = Draw(valid=0.01, test=0, by_speaker=True)
    audio_only = True

    def recognises(self, root: Path) -> bool:
        """Folders of speakers below a folder wav."""
        return any(SPEAKER.fullmatch(path.name) for folder in FOLDERS for path in (root / folder).glob("id*"))

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        """Recordings of all parts that are there."""
        for folder in FOLDERS:
            for sound in sorted((root / folder).glob("id*/*/*.wav")):
                clip = sound.relative_to(root / folder).with_suffix("")
                speaker = clip.parts[0]
                split = "test" if speaker in TEST_SPEAKERS else None
                yield clip.as_posix(), CorpusClip(ClipSource(sound, sound), split, speaker)

    def clip_id(self, text: str) -> str:
        """Takes paths with folders before the speaker, with or without suffix."""
        return "/".join(PurePosixPath(text.strip()).with_suffix("").parts[-3:])
