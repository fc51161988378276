"""Manifests: the clips of a split, and which of them are used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import composed, read_text
from av_ssl.layout import SAMPLES_PER_FRAME, start_folder

logger = logging.getLogger(__name__)

COLUMNS = "id, video path, audio path, number of video frames, number of audio samples"


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

    @property
    def keys(self) -> list[str | Path]:
        """What two clips of the same recording share: id or a file."""
        return [composed(self.id), *(path for path in (self.video, self.audio) if path is not None)]


def read_manifest(path: Path) -> list[Clip]:
    """Read `{split}.tsv`: the root directory, then one clip a line, as AV-HuBERT has it (Shi et al., 2022).

    Columns are separated by tabs: id, video path, audio path, video frames, audio samples. Relative paths are
    joined to the root, a relative root to the folder in which the command was started. The two numbers are
    the last two columns, whatever comes between.

    Raises DataError naming file and line when the manifest is missing, empty or malformed, or an id occurs
    twice.
    """
    clips, problems = scan_manifest(path)
    if problems:
        raise DataError(problems[0])
    return clips


def scan_manifest(path: Path) -> tuple[list[Clip], list[str]]:
    """The clips of all well-formed lines of a manifest, and its problems; see `read_manifest`."""
    text = read_text(path, "check the data folder: a split needs a manifest")
    first, *lines = text.rstrip().split("\n")
    try:
        root = _root(path, first.strip())
    except DataError as error:
        return [], [str(error)]
    if not lines:
        empty = "add clips"
        if path.stem.startswith("valid"):
            empty += ", or train without validation (dataset.disable_validation=true)"
        fix = empty if first else f"after the root directory on line 1 come lines of: {COLUMNS}"
        return [], [f"{path}: lists no clips; {fix}"]
    clips: list[Clip] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        try:
            clip = parse_clip(path, number, line, root)
        except DataError as error:
            problems.append(str(error))
            continue
        other = seen.setdefault(composed(clip.id), number)
        if other != number:
            problems.append(
                f"{path}, line {number}: id {clip.id!r} is also on line {other}; labels, features and "
                "transcripts are found by id: rename one of the clips, or remove it with its labels"
            )
        clips.append(clip)
    return clips, problems


def _root(path: Path, line: str) -> Path:
    """The absolute root directory that the first line of the manifest ``path`` names."""
    if "\t" in line:
        raise DataError(
            f"{path}, line 1: is a clip; insert the root directory above it, or / if paths are absolute"
        )
    places = [start_folder() / line, path.absolute().parent / line]
    if Path(line).is_absolute() or not line:
        return places[0]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(
        f"{path}, line 1: the root directory {line!r} is neither in {start_folder()} nor beside the "
        "manifest; write its absolute path"
    )


def clips_in_both(one: Iterable[Clip], other: Iterable[Clip]) -> list[Clip]:
    """The clips of ``other`` whose id, video or audio is that of a clip of ``one``."""
    known = {key for clip in one for key in clip.keys}
    return [clip for clip in other if not known.isdisjoint(clip.keys)]


def lists_clips(path: Path) -> bool:
    """Whether a manifest is there and has more than its root directory."""
    return path.is_file() and "\n" in read_text(path, "make it readable").rstrip()


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
    if video is None and not frames:  # lists of audio alone may say 0
        frames = samples // SAMPLES_PER_FRAME
    return Clip(items[0], video, audio, frames, samples, number)


def check_streams(manifest: Path, clips: Sequence[Clip], streams: Sequence[str], fix: str) -> None:
    """Raise DataError with file, line and ``fix`` if a clip of the manifest lacks one of the streams."""
    for clip in clips:
        for stream in streams:
            if getattr(clip, stream) is None:
                raise DataError(f"{manifest}, line {clip.line}: clip {clip.id} has no {stream}; {fix}")


def manifest_text(clips: Sequence[Clip]) -> str:
    """The lines of a manifest with the root `/`."""
    lines = [f"{c.id}\t{c.video or ''}\t{c.audio or ''}\t{c.frames}\t{c.samples}" for c in clips]
    return "\n".join(["/", *lines]) + "\n"


def manifest_part(path: Path, clips: Sequence[Clip]) -> str:
    """The text of a manifest with the lines of some of its clips alone."""
    lines = read_text(path, "make it readable").split("\n")
    if not (start_folder() / lines[0].strip()).is_dir():
        lines[0] = str(_root(path, lines[0].strip()))  # beside the manifest, where the part may not lie
    return "\n".join([lines[0], *(lines[clip.line - 1] for clip in clips)]) + "\n"


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
