"""What LRS2 and LRS3 share: a text file beside every video, long clips with word times in `pretrain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av_ssl.corpora.corpus import CorpusClip
from av_ssl.corpora.cutting import LONGEST, cut_at_pauses
from av_ssl.corpora.transcripts import read_word_times, require_transcript
from av_ssl.media.corpus import ClipSource

PRETRAIN = "pretrain"


def read_clip(video: Path, name: str, split: str | None) -> Iterator[tuple[str, CorpusClip]]:
    """The clip PART/ID/NNNNN; of a long one in `pretrain` its pieces, PART/ID/NNNNN_00 and so on."""
    part, speaker, _ = name.split("/")
    text = video.with_suffix(".txt")
    transcript = require_transcript(text)
    words = read_word_times(text) if part == PRETRAIN else []
    if not words or words[-1].end <= LONGEST:
        yield name, CorpusClip(ClipSource(video), split, speaker, transcript, part)
        return
    for number, piece in enumerate(cut_at_pauses(words)):
        source = ClipSource(video, span=piece.span, times=text, recording=name)
        yield f"{name}_{number:02d}", CorpusClip(source, split, speaker, piece.transcript, part)
