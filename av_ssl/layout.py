"""The data folder: rates, names of its files, and manifests, which list the clips of a split."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import read_text

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
"""Audio samples a second."""
FRAME_RATE = 25
"""Video frames a second: the unit of a clip's length."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

BLANK = 0
"""Id of ``<s>``, which is CTC's blank symbol (as fairseq's own ``ctc`` criterion assumes)."""
CROP_MARGIN = 96 / 88
"""Side of a mouth crop, in sides of what models take out of its middle (AV-HuBERT, Shi et al., 2022)."""

STREAMS = {"audio": ("audio",), "video": ("video",), "av": ("audio", "video")}
"""The names that configurations and commands have for a set of streams; all other code uses the tuples."""

SPLITS = ("train", "valid", "test")
TOKENIZER, PIECES, DICTIONARY = "spm.model", "spm.vocab", "dict.wrd.txt"
TOKENIZER_FILES = (TOKENIZER, PIECES, DICTIONARY)
SPEAKER = "spk"
"""Suffix of the files with the speaker of each clip."""
CLASS_LABELS = (SPEAKER, "emo")
LABELLED, FOLD = "labelled_", "fold_"
PART = "_data"
"""End of the name of a folder whose training list is a part of the corpus, such as 30h_data."""


def crop_side(taken: int) -> int:
    """Side of the mouth crops, an even number of pixels, for a model that takes ``taken`` pixels of them."""
    return 2 * round(taken * CROP_MARGIN / 2)


COLUMNS = "id, video path, audio path, number of video frames, number of audio samples"


def labelled_folder(out: Path, clips: int) -> Path:
    return out / f"{LABELLED}{clips}"


def fold_folder(out: Path, name: str) -> Path:
    return out / f"{FOLD}{name}"


def fold_folders(out: Path) -> list[Path]:
    return sorted(path for path in out.glob(f"{FOLD}*") if path.is_dir())


def labelled_folders(out: Path) -> list[Path]:
    """All folders in ``out`` with a smaller training list, the one with the longest training text first."""

    def text_size(folder: Path) -> int:
        text = folder / "train.wrd"
        return text.stat().st_size if text.is_file() else 0

    labelled = [path for path in out.glob(f"{LABELLED}*") if path.name[len(LABELLED) :].isdecimal()]
    folders = [path for path in (*labelled, *out.glob(f"*{PART}")) if path.is_dir()]
    return sorted(folders, key=lambda path: (-text_size(path), path.name))


@dataclass(frozen=True)
class Clip:
    """One line of a manifest."""

    id: str
    video: Path | None
    """Mouth crops at 25 Hz; None where the column is empty."""
    audio: Path | None
    """Waveform at 16 kHz; None where the column is empty."""
    frames: int
    """Video frames, for choosing, sorting and counting clips; a tensor has as many as the file holds."""
    samples: int
    line: int
    """Line of the manifest, from 1; the root directory is line 1."""


def read_manifest(path: Path) -> list[Clip]:
    """Read `{split}.tsv`: the root directory, then one clip a line, as AV-HuBERT has it (Shi et al., 2022).

    Columns are separated by tabs: id, video path, audio path, video frames, audio samples. Relative paths are
    joined to the root. The two numbers are the last two columns, whatever comes between.

    Raises DataError naming file and line when the manifest is missing, empty or malformed.
    """
    lines = read_text(path, "check the data folder: a split needs a manifest").rstrip().split("\n")
    if len(lines) < 2:
        raise DataError(
            f"{path}: lists no clips; after the root directory on line 1 come lines of: {COLUMNS}"
        )
    root = Path(lines[0].strip())
    return [parse_clip(path, number, line, root) for number, line in enumerate(lines[1:], start=2)]


def parse_clip(path: Path, number: int, line: str, root: Path) -> Clip:
    """The clip on line `number` of the manifest `path`; raises DataError when the line is malformed."""
    # Tabs at the end are dropped, as AV-HuBERT does; those at the start stand for empty columns.
    items = line.rstrip().split("\t")
    if len(items) < 5:
        raise DataError(
            f"{path}, line {number}: {len(items)} columns instead of 5; needed, tab-separated: {COLUMNS}"
        )
    try:
        frames, samples = int(items[-2]), int(items[-1])
    except ValueError:
        raise DataError(
            f"{path}, line {number}: lengths {items[-2]!r} and {items[-1]!r} are not whole numbers; "
            "the last two columns are video frames and audio samples"
        ) from None
    video, audio = (root / item if item else None for item in items[1:3])
    return Clip(items[0], video, audio, frames, samples, number)


def check_streams(manifest: Path, clips: Sequence[Clip], streams: Sequence[str], fix: str) -> None:
    """Raise DataError with file, line and ``fix`` if a clip of the manifest lacks one of the streams."""
    for clip in clips:
        for stream in streams:
            if getattr(clip, stream) is None:
                raise DataError(f"{manifest}, line {clip.line}: clip {clip.id} has no {stream}; {fix}")


def manifest_text(clips: Sequence[Clip]) -> str:
    """The lines of a manifest with the root `/`; raises DataError where a path is not absolute."""
    lines = ["/"]
    for clip in clips:
        for path in (clip.video, clip.audio):
            if path is not None and not path.is_absolute():
                raise DataError(
                    f"clip {clip.id}: its path {path} is not absolute; write the whole path of the folder on "
                    "line 1 of its manifest"
                )
        lines.append(f"{clip.id}\t{clip.video or ''}\t{clip.audio or ''}\t{clip.frames}\t{clip.samples}")
    return "\n".join(lines) + "\n"


def manifest_part(path: Path, clips: Sequence[Clip]) -> str:
    """The text of a manifest with the lines of some of its clips alone."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return "\n".join([lines[0], *(lines[clip.line - 1] for clip in clips)]) + "\n"


def with_lengths(clips: Sequence[Clip]) -> list[Clip]:
    """The clips; those without video, whose manifest may say 0 frames, have the length of their audio."""
    return [
        replace(clip, frames=clip.samples // SAMPLES_PER_FRAME)
        if clip.video is None and not clip.frames
        else clip
        for clip in clips
    ]


def keep_by_length(clips: Sequence[Clip], min_frames: int | None, max_frames: int | None) -> list[int]:
    """Indices of the clips of `min_frames` to `max_frames` video frames; None is no bound.

    Raises DataError when none is left.
    """
    low, high = min_frames or 0, math.inf if max_frames is None else max_frames
    short = sum(clip.frames < low for clip in clips)
    kept = [index for index, clip in enumerate(clips) if low <= clip.frames <= high]
    logger.info(
        "kept %d of %d clips; %d have fewer than %d frames, %d more than %s",
        len(kept), len(clips), short, low, len(clips) - len(kept) - short, max_frames,
    )  # fmt: skip
    if not kept:
        raise DataError(
            f"none of {len(clips)} clips has {low} to {max_frames} video frames; "
            "widen min_sample_size and max_sample_size, or correct the frame counts of the manifest"
        )
    return kept
