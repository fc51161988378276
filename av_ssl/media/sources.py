"""The video and audio files below a folder, their ids, and the source of a clip."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from av_ssl.errors import DataError

VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv",
])  # fmt: skip
UNREAD_SUFFIXES = frozenset([
    ".align", ".apng", ".ass", ".ctm", ".eaf", ".gif", ".lrc", ".mjpeg", ".rm", ".rmvb", ".srt", ".swf",
    ".textgrid", ".vtt", ".webp",
])  # fmt: skip
"""Moving images without sound, rare videos, and transcripts of other formats than plain text."""
AUDIO_SUFFIXES = frozenset([".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"])


@dataclass(frozen=True)
class ClipSource:
    """Files that a clip is made from."""

    video: Path
    sound: Path | None = None  # used where the video has no audio stream
    span: tuple[float, float] | None = None  # seconds, when the clip is a part of the video
    times: Path | None = None  # the file that the span was read from
    recording: str | None = None  # id of the entire video of a part; landmark files carry this name

    def absolute(self) -> ClipSource:
        """The same clip with absolute paths, for processes with another working directory."""
        sound, times = (None if path is None else path.absolute() for path in (self.sound, self.times))
        return replace(self, video=self.video.absolute(), sound=sound, times=times)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that decide what is cropped; ``sound`` is not among them."""
        return (self.video,) if self.times is None else (self.video, self.times)


def find_videos(root: Path, skip: Path | None = None) -> dict[str, Path]:
    """The videos below a folder by id, sorted; links are followed, hidden names are left out.

    The id is the path relative to ``root`` without suffix, with "/" between folders. The subfolder ``skip``
    is left out. Raises DataError when ``root`` is no folder or holds no video, or two videos have one id.
    """
    return _find(root, skip, VIDEO_SUFFIXES, "video")


def find_audio(root: Path) -> dict[str, Path]:
    """Find the audio files below a folder, as ``find_videos`` does for videos."""
    return _find(root, None, AUDIO_SUFFIXES, "recording")


def find_recordings(root: Path) -> dict[str, Path]:
    """Find the video and audio files below a folder, as ``find_videos`` does for videos."""
    return _find(root, None, VIDEO_SUFFIXES | AUDIO_SUFFIXES, "recording")


def passed_over(root: Path, skip: Path | None = None) -> Counter[str]:
    """Number of files below a folder, by suffix, that look like clips or transcripts but are not read."""
    suffixes = (path.suffix.lower() for path in _files(root, skip))
    return Counter(suffix for suffix in suffixes if suffix in UNREAD_SUFFIXES)


def usable_name(name: str) -> bool:
    """Whether an id can be written into a manifest: UTF-8, no tab, no line break."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name.splitlines()) == 1 and "\t" not in name


def _find(root: Path, skip: Path | None, suffixes: frozenset[str], kind: str) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder; name the folder that holds the {kind}s")
    found: dict[str, Path] = {}
    for path in _files(root, skip):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{path}: has the same id as {found[name].name}; rename or remove one of them")
        found[name] = path
    if not found:
        raise DataError(f"{root}: holds no {kind} ({', '.join(sorted(suffixes))})")
    return dict(sorted(found.items()))


def _files(root: Path, skip: Path | None) -> Iterator[Path]:
    skipped = os.path.realpath(skip) if skip else None
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); make the folder readable"
        ) from error

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited or real == skipped:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)
