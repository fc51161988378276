"""One picture that shows many crops with their ids, to see at a glance whether cropping worked.

The report of a cropping run as one page that needs no other file and no network.

What a cropping run leaves for people and for the manifest.

clips.tsv, report.json, report.html and contact_sheet.png.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError, MediaError
from av_ssl.io import write_atomically
from av_ssl.media.crop_folder import ClipFiles, FolderResult
from av_ssl.media.crops import NO_FACE, CropResult
from av_ssl.media.video import FPS, VideoReader

COLUMNS = 8
CAPTION = 14  # pixels below each crop
BORDER = 4  # pixels
FRAME_SIDE = 128  # pixels at which a crop is shown

Picture = NDArray[np.uint8]


def contact_sheet(crops: Sequence[tuple[str, Picture]], columns: int = COLUMNS) -> Picture:
    """Gray picture of `crops`, each an id and a gray picture `[H, W]`; the end of the id stands below."""
    columns = max(1, min(columns, len(crops)))
    width, height = FRAME_SIDE + 2 * BORDER, FRAME_SIDE + CAPTION + 2 * BORDER
    rows = max(1, -(-len(crops) // columns))
    sheet = np.full((rows * height, columns * width), 255, np.uint8)
    for place, (name, crop) in enumerate(crops):
        top, left = (place // columns) * height + BORDER, (place % columns) * width + BORDER
        shown = cv2.resize(crop, (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_LINEAR)
        sheet[top : top + FRAME_SIDE, left : left + FRAME_SIDE] = shown
        caption = name.encode("ascii", "replace").decode()[-20:]
        origin = (left, top + FRAME_SIDE + CAPTION - 3)
        cv2.putText(sheet, caption, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.34, 0, 1, cv2.LINE_AA)
    return sheet


def contact_sheet_png(crops: Sequence[tuple[str, Picture]]) -> bytes:
    """`contact_sheet` as the content of a PNG file."""
    _, png = cv2.imencode(".png", contact_sheet(crops))
    return png.tobytes()


SHOWN_FAILURES = 1000  # rows of the table; report.json holds all
BAR_WIDTH, BAR_HEIGHT, LABEL_HEIGHT = 26, 120, 34  # pixels

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2em; }
table { border-collapse: collapse; }
td, th { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number { text-align: right; }
.bars text { font-size: 10px; text-anchor: middle; }
.bars rect { fill: #4477aa; }
img { max-width: 100%; }
p.note { color: #555; }
"""


def html_page(title: str, report: Mapping[str, Any], contact_sheet: bytes | None) -> str:
    """The page; `report` as `crop_report.summary` makes it, `contact_sheet` a PNG."""
    sections = [
        f"<h1>Crops in {escape(title)}</h1>",
        _overview(report),
        "<h2>Length of the clips, seconds</h2>",
        _histogram(report["seconds"]["histogram"]),
        "<h2>Frame rate of the sources</h2>",
        _histogram(report["source_frame_rates"]),
        "<h2>Faces in a clip</h2>",
        _histogram(report["faces"]),
        "<h2>Delay of the sound, frames of 40 ms</h2>",
        _delay_note(report["audio_delay_frames"]),
        _histogram(report["audio_delay_frames"]["histogram"]),
        _sheet(contact_sheet),
        _failures(report["failed"]),
    ]
    body = "\n".join(sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _overview(report: Mapping[str, Any]) -> str:
    seconds = report["seconds"]
    rows = [
        ("videos", f"{report['videos']:,}"),
        *((f"&nbsp; {escape(reason)}", f"{count:,}") for reason, count in report["reasons"].items()),
        ("hours cropped", f"{report['hours']:.3g}"),
        ("without a face", f"{report['no_face_rate']:.1%}"),
        ("with several faces", f"{report['several_faces_rate']:.1%}"),
        ("sound longer than the pictures, cut", f"{report['sound_cut']:,}"),
        ("sound shorter than the pictures, filled with silence", f"{report['sound_filled']:,}"),
    ]
    if "median" in seconds:
        lengths = " / ".join(f"{seconds[key]:g}" for key in ("shortest", "median", "longest"))
        rows.append(("seconds: shortest / median / longest", lengths))
    cells = "\n".join(f'<tr><td>{name}</td><td class="number">{value}</td></tr>' for name, value in rows)
    return f"<table>\n{cells}\n</table>"


def _delay_note(delays: Mapping[str, Any]) -> str:
    median = f"median {delays['median']:+g}; " if "median" in delays else ""
    return (
        f'<p class="note">{median}estimated for {delays["estimated"]:,} clips, unknown for '
        f"{delays['unknown']:,}. The shift at which the opening of the mouth follows the loudness of the "
        "sound best: an estimate of a few frames' accuracy for one clip. A common shift of all clips is what "
        "to look for; positive means that the sound is late.</p>"
    )


def _histogram(counts: Mapping[str, int]) -> str:
    """Bars with their labels below and counts above."""
    if not counts:
        return '<p class="note">no clip</p>'
    highest = max(counts.values())
    bars = []
    for place, (label, count) in enumerate(counts.items()):
        height = max(1, round(BAR_HEIGHT * count / highest))
        left, top = place * 2 * BAR_WIDTH + BAR_WIDTH // 2, LABEL_HEIGHT // 2 + BAR_HEIGHT - height
        middle, bottom = left + BAR_WIDTH // 2, LABEL_HEIGHT + BAR_HEIGHT - 4
        bars.append(
            f'<rect x="{left}" y="{top}" width="{BAR_WIDTH}" height="{height}"/>'
            f'<text x="{middle}" y="{top - 3}">{count:,}</text>'
            f'<text x="{middle}" y="{bottom}">{escape(label)}</text>'
        )
    width, height = len(counts) * 2 * BAR_WIDTH, BAR_HEIGHT + LABEL_HEIGHT
    return f'<svg class="bars" width="{width}" height="{height}" role="img">{"".join(bars)}</svg>'


def _sheet(png: bytes | None) -> str:
    if png is None:
        return ""
    data = base64.b64encode(png).decode()
    return (
        "<h2>Crops of random clips</h2>\n"
        '<p class="note">Every picture should show a mouth (or face) in its middle.</p>\n'
        f'<img alt="crops of random clips" src="data:image/png;base64,{data}">'
    )


def _failures(failed: list[Mapping[str, str]]) -> str:
    if not failed:
        return "<h2>Failures</h2>\n<p>none</p>"
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(entry[key])}</td>" for key in ("id", "reason", "message")) + "</tr>"
        for entry in failed[:SHOWN_FAILURES]
    )
    more = len(failed) - SHOWN_FAILURES
    note = f'\n<p class="note">and {more:,} more in report.json</p>' if more > 0 else ""
    heads = "<tr><th>id</th><th>reason</th><th>message</th></tr>"
    return f"<h2>Failures</h2>\n<table>\n{heads}\n{rows}\n</table>{note}"


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
