"""One picture that shows many crops with their ids, to see at a glance whether cropping worked."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

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
