"""What a cropping run leaves for people and for the manifest.

``clips.tsv`` lists the clips. ``report.json`` holds the counts and every failure; ``report.html`` shows them
on a page that needs no other file and no network. ``contact_sheet.png`` shows crops of random clips.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from av_ssl.errors import DataError, MediaError
from av_ssl.io import read_text, write_atomically, write_json
from av_ssl.layout import FRAME_RATE
from av_ssl.media.crop_folder import FolderResult
from av_ssl.media.crops import NO_FACE, CropResult
from av_ssl.media.face_mesh import Frame
from av_ssl.media.video import read_video

CLIPS = "clips.tsv"
HEADER = ("id", "video", "audio", "frames", "samples")
ClipRow = tuple[str, str, str, int, int]
LONGEST_BAR = 30  # seconds; the last bar of the histogram holds all longer clips
MOSTLY = 0.95  # share of frames with the mouth below which a clip has a remark
SOUND_APART = 0.2  # seconds; audio codecs lengthen the audio by up to 0.1 s
SHEET_CROPS, SHEET_COLUMNS = 64, 8
CROP_SIDE, CAPTION, BORDER = 128, 14, 4  # pixels of a crop on the sheet, of the text below, around both
SHOWN_FAILURES = 1000  # rows on the page; report.json holds all
BAR_LENGTH = 40  # characters

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }}
td, th {{ text-align: left; padding: .1em .8em .1em 0; border-bottom: 1px solid #ddd; vertical-align: top; }}
img {{ max-width: 100%; }}
</style></head><body>
<h1>Crops in {title}</h1>
{body}
</body></html>
"""
DELAY_NOTE = (
    "<p>The delay is the shift at which mouth opening and loudness of the audio correlate best. For one clip "
    "it is a rough estimate, a few frames off; look at the median. Positive: the audio is late.</p>"
)


def write_report(folder: FolderResult, out: Path) -> dict[str, Any]:
    """Write the four files into ``out``; returns the content of report.json.

    ``clips.tsv`` keeps the clips of earlier runs, with other choices of ids, whose files are still there.
    """
    done = {name: result for name, result in folder.results.items() if result.ok}
    rows = {name: row for name, row in _listed(out).items() if name not in folder.results}
    for name, result in done.items():
        rows[name] = (name, f"video/{name}.mp4", f"audio/{name}.wav", result.frames, result.samples)
    lines = ("\t".join(map(str, row)) for row in (HEADER, *(rows[name] for name in sorted(rows))))
    write_atomically(out / CLIPS, ("\n".join(lines) + "\n").encode())
    report = summary(folder)
    write_json(out / "report.json", report)
    crops = _random_crops(list(done), out)
    sheet = cv2.imencode(".png", contact_sheet(crops))[1].tobytes() if crops else None
    if sheet is not None:
        write_atomically(out / "contact_sheet.png", sheet)
    write_atomically(out / "report.html", html_page(str(out), report, sheet).encode("utf-8", "replace"))
    return report


def _listed(out: Path) -> dict[str, ClipRow]:
    """Rows of an earlier clips.tsv, by id, whose files are there; a damaged one has none."""
    try:
        rows = read_clips(out)
    except DataError:
        return {}
    return {row[0]: row for row in rows if (out / row[1]).is_file() and (out / row[2]).is_file()}


def read_clips(out: Path) -> list[ClipRow]:
    """Rows of clips.tsv: id, video and audio relative to ``out``, frames (25 a second), samples (16 kHz)."""
    path = out / CLIPS
    if not path.is_file():
        raise DataError(f"{path}: does not exist; run av-ssl crop first")
    lines = read_text(path, "run av-ssl crop again").split("\n")
    if lines[0].split("\t") != list(HEADER):
        raise DataError(f"{path}, line 1: is not the header of a clip list; run av-ssl crop again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        columns = line.split("\t")
        if len(columns) != len(HEADER) or not (columns[3].isdecimal() and columns[4].isdecimal()):
            raise DataError(f"{path}, line {number}: is not {', '.join(HEADER)}; run av-ssl crop again")
        name, video, audio, frames, samples = columns
        rows.append((name, video, audio, int(frames), int(samples)))
    if not rows:
        raise DataError(f"{path}: lists no clip; see report.json for the failures")
    return rows


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
        "hours": round(sum(result.frames for result in done) / FRAME_RATE / 3600, 4),
        "no_face_rate": _share(sum(result.reason == NO_FACE for result in decoded), len(decoded)),
        "clips_with_several_faces": several,
        "several_faces_rate": _share(several, len(decoded)),
        "faces": _counts(result.faces for result in decoded),
        "source_frame_rates": _counts(f"{result.source_fps:.3f}" for result in decoded),
        "seconds": _durations(done),
        "audio_delay_frames": _delays(done),
        "sound_cut": sum(result.sound_excess > SOUND_APART for result in done),
        "face_share": _quartiles([result.face_share for result in decoded]),
        "inside": _quartiles([result.inside for result in decoded]),
        "clips_with_face_changes": sum(result.face_changes > 0 for result in decoded),
        "silent": sum(result.silent for result in done),
        "sound_gaps": sum(result.sound_gaps > 0 for result in done),
        "sound_drift": sum(result.sound_drift > 0 for result in done),
        "frozen": sum(result.frozen > 0 for result in done),
        "remarks": [
            {"id": name, "remark": text} for name, result in results.items() if (text := remark(result))
        ],
        "sound_filled": sum(result.sound_excess < -SOUND_APART for result in done),
        "failed": failed,
    }


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _share(part: int, total: int) -> float:
    return round(part / total, 4) if total else 0.0


def remark(result: CropResult) -> str:
    """What is unusual about a clip that was cropped; empty for most."""
    share = 1.0 if result.face_share is None else result.face_share
    remarks = [
        *(["the audio is silent"] if result.silent else []),
        *([f"audio track {result.sound_track} is used"] if result.sound_track else []),
        *([f"no mouth in {1 - share:.0%} of the frames; interpolated"] if share < MOSTLY else []),
        *([f"{result.sound_gaps:.2f} s of audio are missing"] if result.sound_gaps else []),
        *([f"the audio clock was off by up to {result.sound_drift:.2f} s"] if result.sound_drift else []),
        *([f"the video has no new frame for {result.frozen:.2f} s"] if result.frozen else []),
        *([f"{result.face_changes} changes of the face, as at cuts"] if result.face_changes else []),
    ]
    return "; ".join(remarks) if result.ok else ""


def _quartiles(shares: Iterable[float | None]) -> dict[str, float]:
    """Lowest, lower quartile and median of the shares that are known."""
    known = [share for share in shares if share is not None]
    if not known:
        return {}
    values = np.quantile(known, (0, 0.25, 0.5))
    return {
        name: round(float(value), 4)
        for name, value in zip(("lowest", "quartile", "median"), values, strict=True)
    }


def _durations(done: list[CropResult]) -> dict[str, Any]:
    """Shortest, median and longest clip, and clips a second of length: "3" counts those of 3 to 4 s."""
    seconds = np.array([result.frames / FRAME_RATE for result in done])
    if not len(seconds):
        return {"histogram": {}}
    shortest, median, longest = (round(float(value), 2) for value in np.quantile(seconds, (0, 0.5, 1)))
    histogram = _counts(np.minimum(seconds, LONGEST_BAR).astype(int).tolist())
    return {"shortest": shortest, "median": median, "longest": longest, "histogram": histogram}


def _delays(done: list[CropResult]) -> dict[str, Any]:
    """Estimated delays of the audio against the lips, frames, of the clips that allow an estimate."""
    delays = [result.audio_delay for result in done if result.audio_delay is not None]
    known = {"estimated": len(delays), "unknown": len(done) - len(delays)}
    if not delays:
        return {**known, "histogram": {}}
    median = round(float(np.median(delays)), 1)
    return {**known, "median": median, "histogram": _counts(round(delay) for delay in delays)}


def html_page(title: str, report: Mapping[str, Any], sheet: bytes | None) -> str:
    """The page of a ``summary`` and the contact sheet, PNG."""
    seconds, delays, failed = report["seconds"], report["audio_delay_frames"], report["failed"]
    overview = [
        ("videos", report["videos"]),
        *((f"- {reason}", count) for reason, count in report["reasons"].items()),
        ("hours cropped", f"{report['hours']:.3g}"),
        ("without a face", f"{report['no_face_rate']:.1%}"),
        ("with several faces", f"{report['several_faces_rate']:.1%}"),
        *(
            (f"{title}, {key}", f"{value:.0%}")
            for title, name in (
                ("frames with the speaker's face", "face_share"),
                ("crop inside frame", "inside"),
            )
            for key, value in report[name].items()
        ),
        ("with changes of the face, as at cuts", report["clips_with_face_changes"]),
        ("silent", report["silent"]),
        ("audio with gaps, filled with silence", report["sound_gaps"]),
        ("audio whose clock was off, stretched", report["sound_drift"]),
        ("video without a new frame for over half a second", report["frozen"]),
        ("audio longer than the video, cut", report["sound_cut"]),
        ("audio shorter than the video, filled with silence", report["sound_filled"]),
        *(
            (f"seconds, {key}", f"{seconds[key]:g}")
            for key in ("shortest", "median", "longest")
            if key in seconds
        ),
        ("audio delay, clips with an estimate", delays["estimated"]),
        ("audio delay, clips without", delays["unknown"]),
        *([("audio delay, median in frames", f"{delays['median']:+g}")] if "median" in delays else []),
    ]
    body = [
        _table(overview),
        _histogram("Length of the clips, seconds", seconds["histogram"]),
        _histogram("Frame rate of the sources", report["source_frame_rates"]),
        _histogram("Faces in a clip", report["faces"]),
        _histogram("Delay of the audio, frames of 40 ms", delays["histogram"]),
        DELAY_NOTE,
    ]
    if sheet is not None:
        data = base64.b64encode(sheet).decode()
        body.append("<h2>Crops of random clips</h2><p>Each should show a mouth (or face) in its middle.</p>")
        body.append(f'<img alt="crops of random clips" src="data:image/png;base64,{data}">')
    remarks = report["remarks"]
    body.append(f"<h2>Remarks</h2><p>{len(remarks):,} clips were cropped that may need a look</p>")
    body.append(_table([(clip["id"], clip["remark"]) for clip in remarks[:SHOWN_FAILURES]]))
    body.append(f"<h2>Failures</h2><p>{len(failed):,}; report.json lists all</p>")
    body.append(_table([(clip["id"], clip["reason"], clip["message"]) for clip in failed[:SHOWN_FAILURES]]))
    return PAGE.format(title=escape(title), body="\n".join(body))


def _table(rows: Iterable[Sequence[object]]) -> str:
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _histogram(title: str, counts: Mapping[str, int]) -> str:
    highest = max(counts.values(), default=1)
    rows = [
        (label, count, "█" * max(1, round(BAR_LENGTH * count / highest))) for label, count in counts.items()
    ]
    return f"<h2>{escape(title)}</h2>\n{_table(rows)}"


def contact_sheet(crops: Sequence[tuple[str, Frame]]) -> Frame:
    """Grayscale image of crops, each an id and a frame ``[H, W]``; the end of the id is written below."""
    columns = max(1, min(SHEET_COLUMNS, len(crops)))
    width, height = CROP_SIDE + 2 * BORDER, CROP_SIDE + CAPTION + 2 * BORDER
    rows = max(1, -(-len(crops) // columns))
    sheet = np.full((rows * height, columns * width), 255, np.uint8)
    for place, (name, crop) in enumerate(crops):
        top, left = (place // columns) * height + BORDER, (place % columns) * width + BORDER
        shown = cv2.resize(crop, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_LINEAR)
        sheet[top : top + CROP_SIDE, left : left + CROP_SIDE] = shown
        caption = name.encode("ascii", "replace").decode()[-20:]
        origin = (left, top + CROP_SIDE + CAPTION - 3)
        cv2.putText(sheet, caption, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.34, 0, 1, cv2.LINE_AA)
    return sheet


def _random_crops(names: list[str], out: Path) -> list[tuple[str, Frame]]:
    """The middle frame of up to 64 clips; the same clips in every run."""
    crops = []
    for name in sorted(random.Random(0).sample(names, min(SHEET_CROPS, len(names)))):
        try:
            frames = read_video(out / "video" / f"{name}.mp4")
        except MediaError:  # another run replaces it, or it was removed; av-ssl data check reports that
            continue
        crops.append((name, frames[len(frames) // 2]))
    return crops
