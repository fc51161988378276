"""What a cropping run leaves for people and for the manifest: clips.tsv, report.json, contact_sheet.png."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from av_ssl.errors import DataError
from av_ssl.media.contact_sheet import write_contact_sheet
from av_ssl.media.crop_folder import ClipFiles, FolderResult
from av_ssl.media.files import write_atomically
from av_ssl.media.video import FPS, VideoReader

CLIPS = "clips.tsv"
HEADER = ("id", "video", "audio", "frames", "samples")
SHEET_CROPS = 64


def write_report(folder: FolderResult, out: Path) -> dict[str, Any]:
    """Write the three files into `out`; returns what report.json holds."""
    rows = ["\t".join(HEADER)]
    done = {name: result for name, result in folder.results.items() if result.ok}
    for name, result in done.items():
        files = ClipFiles(out, name)
        video, audio = files.video.relative_to(out).as_posix(), files.audio.relative_to(out).as_posix()
        rows.append(f"{name}\t{video}\t{audio}\t{result.frames}\t{result.samples}")
    write_atomically(out / CLIPS, ("\n".join(rows) + "\n").encode())
    report = summary(folder)
    write_atomically(out / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    _write_sheet(list(done), out)
    return report


def summary(folder: FolderResult) -> dict[str, Any]:
    """Counts, and every clip that failed with its reason."""
    results = folder.results
    decoded = [result for result in results.values() if result.source_fps]
    failed = [
        {"id": name, "source": str(folder.sources[name]), "reason": result.reason, "message": result.message}
        for name, result in results.items()
        if not result.ok
    ]
    return {
        "videos": len(results),
        "reasons": _counts(result.reason for result in results.values()),
        "hours": round(sum(r.frames for r in results.values() if r.ok) / FPS / 3600, 4),
        "clips_with_several_faces": sum(result.faces > 1 for result in decoded),
        "faces": _counts(result.faces for result in decoded),
        "source_frame_rates": _counts(f"{result.source_fps:.3f}" for result in decoded),
        "failed": failed,
    }


def read_clips(out: Path) -> list[tuple[str, str, str, int, int]]:
    """Rows of clips.tsv: id, video and audio relative to `out`, frames (25 a second), samples (16 kHz)."""
    path = out / CLIPS
    if not path.is_file():
        raise DataError(f"{path}: does not exist; run av-ssl crop first")
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0].split("\t") != list(HEADER):
        raise DataError(f"{path}, line 1: is not the header of a clip list; run av-ssl crop again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        columns = line.split("\t")
        if len(columns) != len(HEADER) or not (columns[3].isdecimal() and columns[4].isdecimal()):
            raise DataError(
                f"{path}, line {number}: does not hold {', '.join(HEADER)}; run av-ssl crop again"
            )
        name, video, audio, frames, samples = columns
        rows.append((name, video, audio, int(frames), int(samples)))
    if not rows:
        raise DataError(f"{path}: lists no clip; see report.json for what failed")
    return rows


def _counts(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _write_sheet(names: list[str], out: Path) -> None:
    """The middle picture of up to 64 clips spread over the list."""
    step = max(1, -(-len(names) // SHEET_CROPS))
    crops = []
    for name in names[::step]:
        pictures = list(VideoReader(ClipFiles(out, name).video, keep_bytes=0).frames(gray=True))
        crops.append((name, pictures[len(pictures) // 2]))
    if crops:
        write_contact_sheet(out / "contact_sheet.png", crops)
