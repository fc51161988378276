"""MUSAN (Snyder, Chen, Povey, 2015): {music,noise,speech}/SOURCE/NAME.wav, 16 kHz."""

from __future__ import annotations

from pathlib import Path

from av_ssl.corpora import recognised
from av_ssl.errors import DataError
from av_ssl.media.noise_files import MUSIC, NOISE, SPEECH
from av_ssl.media.sources import find_audio

KINDS = (MUSIC, NOISE, SPEECH)


def find_recordings(root: Path) -> dict[str, dict[str, Path]]:
    """Recordings of each kind by id, such as fma/music-fma-0000.

    Raises:
        DataError: ``root`` is not MUSAN, or one of its three parts is missing or empty.
    """
    if not any((root / kind).is_dir() for kind in KINDS):
        other = recognised(root)
        hint = "" if other is None else f" It looks like {other.title}."
        raise DataError(f"{root}: is not MUSAN; expected music/, noise/ and speech/ in it.{hint}")
    return {kind: find_audio(root / kind) for kind in KINDS}
