"""What a cropping run leaves for people and for the manifest.

clips.tsv, report.json, report.html and contact_sheet.png.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from av_ssl.errors import DataError, MediaError
from av_ssl.media.contact_sheet import Picture, contact_sheet_png
from av_ssl.media.crop_folder import ClipFiles, FolderResult
from av_ssl.media.cropping import NO_FACE, CropResult
from av_ssl.media.files import write_atomically
from av_ssl.media.html_report import html_page
from av_ssl.media.video import FPS, VideoReader

CLIPS = "clips.tsv"
HEADER = ("id", "video", "audio", "frames", "samples")
SHEET_CROPS = 64
DURATION_STEP = 1.0  # seconds a bar of the histogram
LONGEST_BAR = 30.0  # seconds; the last bar holds all that is longer
SOUND_APART = 0.2  # seconds; audio coders lengthen the sound by up to 0.1 s


def write_report(folder: FolderResult, out: Path) -> dict[str, Any]:
    """Write the four files into `out`; returns what report.json holds."""
    rows = ["\t".join(HEADER)]
    done = {name: result for name, result in folder.results.items() if result.ok}
    for name, result in done.items():
        files = ClipFiles(out, name)
        video, audio = files.video.relative_to(out).as_posix(), files.audio.relative_to(out).as_posix()
        rows.append(f"{name}\t{video}\t{audio}\t{result.frames}\t{result.samples}")
    write_atomically(out / CLIPS, ("\n".join(rows) + "\n").encode())
    report = summary(folder)
    write_atomically(out / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    crops = _random_crops(list(done), out)
    sheet = contact_sheet_png(crops) if crops else None
    if sheet is not None:
        write_atomically(out / "contact_sheet.png", sheet)
    write_atomically(out / "report.html", html_page(str(out), report, sheet).encode("utf-8", "replace"))
    return report


def summary(folder: FolderResult) -> dict[str, Any]:
    """Counts, rates, histograms, and every clip that failed with its reason."""
    results = folder.results
    decoded = [result for result in results.values() if result.source_fps]
    done = [result for result in results.values() if result.ok]
    several = sum(result.faces > 1 for result in decoded)
    failed = [
        {"id": name, "source": str(folder.sources[name]), "reason": result.reason, "message": result.message}
        for name, result in results.items()
        if not result.ok
    ]
    return {
        "videos": len(results),
        "reasons": _counts(result.reason for result in results.values()),
        "hours": round(sum(result.frames for result in done) / FPS / 3600, 4),
        "no_face_rate": _share(sum(result.reason == NO_FACE for result in decoded), len(decoded)),
        "clips_with_several_faces": several,
        "several_faces_rate": _share(several, len(decoded)),
        "faces": _counts(result.faces for result in decoded),
        "source_frame_rates": _counts(f"{result.source_fps:.3f}" for result in decoded),
        "seconds": _durations(done),
        "audio_delay_frames": _delays(done),
        "sound_cut": sum(result.sound_excess > SOUND_APART for result in done),
        "sound_filled": sum(result.sound_excess < -SOUND_APART for result in done),
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


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _durations(done: list[CropResult]) -> dict[str, Any]:
    """Shortest, middle and longest clip, and clips a second of length: "3" counts those of 3 to 4 s."""
    seconds = np.array([result.frames / FPS for result in done])
    if not len(seconds):
        return {"histogram": {}}
    bars = np.minimum(seconds, LONGEST_BAR) // DURATION_STEP
    low, middle, high = (round(float(value), 2) for value in np.quantile(seconds, (0, 0.5, 1)))
    counts = _counts(int(bar * DURATION_STEP) for bar in bars)
    histogram = dict(sorted(counts.items(), key=lambda item: int(item[0])))
    return {"shortest": low, "median": middle, "longest": high, "histogram": histogram}


def _delays(done: list[CropResult]) -> dict[str, Any]:
    """Estimated frames by which sound comes after the lips, of the clips that allow an estimate."""
    delays = [result.audio_delay for result in done if result.audio_delay is not None]
    known = {"estimated": len(delays), "unknown": len(done) - len(delays)}
    if not delays:
        return {**known, "histogram": {}}
    histogram = dict(sorted(Counter(round(delay) for delay in delays).items()))
    return {
        **known,
        "median": round(float(np.median(delays)), 1),
        "histogram": {str(delay): count for delay, count in histogram.items()},
    }


def _random_crops(names: list[str], out: Path) -> list[tuple[str, Picture]]:
    """The middle picture of up to 64 clips; the same clips in every run."""
    chosen = sorted(random.Random(0).sample(names, min(SHEET_CROPS, len(names))))
    crops = []
    for name in chosen:
        try:
            pictures = list(VideoReader(ClipFiles(out, name).video, keep_bytes=0).frames(gray=True))
        except MediaError:  # another run replaces it, or somebody has removed it: av-ssl check says so
            continue
        crops.append((name, pictures[len(pictures) // 2]))
    return crops
