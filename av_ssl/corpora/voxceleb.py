"""VoxCeleb1 (Nagrani, Chung, Zisserman, 2017): wav/idNNNNN/VIDEO/NNNNN.wav, audio only.

VoxCeleb2 (Chung, Nagrani, Zisserman, 2018): {dev,test}/mp4/idNNNNN/VIDEO/NNNNN.mp4, no transcripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw
from av_ssl.media.sources import ClipSource

FOLDERS = ("wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav")
VOXCELEB1_SPEAKER = re.compile(r"id1\d{4}")
TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10270, 10310))
"""The 40 speakers of the verification trials (those whose names begin with E)."""


class VoxCeleb1(Corpus):
    """VoxCeleb1; the id of a clip is that of the trial lists, such as id10270/5r0dWxy17C8/00001.

    It is distributed without videos: nothing is cropped, and manifests have an empty video column.
    """

    name = "voxceleb1"
    title = "VoxCeleb1"
    layout = "wav/idNNNNN/VIDEO/NNNNN.wav, perhaps in dev and test, or vox1_dev_wav and vox1_test_wav"
    draw = Draw(valid=0.01, test=0, by_speaker=True)
    audio_only = True

    def recognises(self, root: Path) -> bool:
        return any(
            VOXCELEB1_SPEAKER.fullmatch(path.name)
            for folder in FOLDERS
            for path in (root / folder).glob("id*")
        )

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for folder in FOLDERS:
            for sound in sorted((root / folder).glob("id*/*/*.wav")):
                clip = sound.relative_to(root / folder).with_suffix("")
                speaker = clip.parts[0]
                split = "test" if speaker in TEST_SPEAKERS else None
                yield clip.as_posix(), CorpusClip(ClipSource(sound, sound), split, speaker)

    def clip_id(self, text: str) -> str:
        """Accepts paths with folders before the speaker, with or without suffix."""
        return "/".join(PurePosixPath(text.strip()).with_suffix("").parts[-3:])


# None: validation speakers are drawn from dev.
SPLIT_OF_PART = {"dev": None, "test": "test"}
SPEAKER = re.compile(r"id\d{5}")
MEDIA = ("mp4", "aac")


class VoxCeleb2(Corpus):
    """VoxCeleb2; the id of a clip is for example dev/id00012/21Uxsk56VDQ/00001.

    Audio may come in a separate archive, as {dev,test}/aac/idNNNNN/VIDEO/NNNNN.m4a; it is used for videos
    without an audio stream.
    """

    name = "voxceleb2"
    title = "VoxCeleb2"
    layout = "dev/mp4/idNNNNN/VIDEO/NNNNN.mp4 and test/mp4/idNNNNN/VIDEO/NNNNN.mp4"
    draw = Draw(valid=0.01, test=0, by_speaker=True)

    def recognises(self, root: Path) -> bool:
        return any((root / part / "mp4").is_dir() for part in SPLIT_OF_PART)

    def find(self, root: Path, skip: Path | None) -> Iterator[tuple[str, CorpusClip]]:
        for part, split in SPLIT_OF_PART.items():
            sounds = root / part / "aac"
            apart = sounds.is_dir()
            for video in sorted((root / part / "mp4").glob("id*/*/*.mp4")):
                clip = video.relative_to(root / part / "mp4").with_suffix("")
                sound = sounds / clip.with_suffix(".m4a") if apart else None
                source = ClipSource(video, sound)
                yield f"{part}/{clip.as_posix()}", CorpusClip(source, split, clip.parts[0], part=part)

    def clip_id(self, text: str) -> str:
        """Accepts paths with "mp4" or "aac" in between, with or without suffix; without a part it is dev."""
        parts = PurePosixPath(text.strip()).with_suffix("").parts
        parts = tuple(part for part in parts if part not in MEDIA)[-4:]
        if len(parts) >= 3 and SPEAKER.fullmatch(parts[-3]) and parts[-4:-3] not in (("dev",), ("test",)):
            parts = ("dev", *parts[-3:])
        return "/".join(parts)
