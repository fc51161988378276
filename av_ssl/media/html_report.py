"""The report of a cropping run as one page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

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
