"""What is seen between open lips: teeth of skull and jaw, the tongue, and the dark behind them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from corpus.look import Look
from corpus.mouth import MIDDLE, Lips, Mouth
from corpus.photographs import EYE_DISTANCE
from corpus.visemes import Viseme

Floats = NDArray[np.floating]

_SUBPIXEL_BITS = 4  # cv2 draws in sixteenths of a pixel
_TOOTH_WIDTH = 0.075 * EYE_DISTANCE
_UPPER_ROW, _LOWER_ROW = 0.045 * EYE_DISTANCE, 0.035 * EYE_DISTANCE  # how far the rows reach from the seam
_MARGIN = 2  # pixels around the opening, for the smoothing of its edge
_SHUT = 3.0  # pixels of the canvas: a smaller gap is filled with less and less of the interior


@dataclass(frozen=True)
class Opening:
    """The opening of the mouth in one frame, in canvas pixels below the middle between the corners."""

    top: float
    bottom: float
    half_width: float
    jaw_drop: float
    lift: float
    stand: Viseme

    @property
    def gap(self) -> float:
        return self.bottom - self.top


class Interior:
    """Paints the inside of one speaker's mouth."""

    def __init__(self, look: Look, mouth: Mouth) -> None:
        self._mouth = mouth
        self._middle = mouth.middle.astype(np.float32)
        self._teeth: Floats = look.teeth.astype(np.float32)
        self._tongue = look.tongue.astype(np.float32)
        self._cavity = look.cavity.astype(np.float32)

    def paint(
        self,
        picture: NDArray[np.uint8],
        canvas: Floats,
        to_frame: Floats,
        lips: Lips,
        frame: int,
        stand: Viseme,
    ) -> None:
        """Paint the opening of `lips` at `frame` into `picture` uint8 RGB `[S, S, 3]`, in place.

        `canvas` `[S, S, 2]` is the place on the canvas of every pixel, `to_frame` `[2, 3]` the way back.
        """
        upper, lower = lips.upper_inner[frame], lips.lower_inner[frame]
        x, y = self._middle
        opening = Opening(
            top=float(upper[MIDDLE, 1] - y),
            bottom=float(lower[MIDDLE, 1] - y),
            half_width=float(max(upper[-1, 0] - x, 1)),
            jaw_drop=float(lips.jaw_drop[frame]),
            lift=float(lips.lift[frame]),
            stand=stand,
        )
        if opening.gap <= 0:
            return
        outline = np.vstack([upper, lower[::-1]]) @ to_frame[:, :2].T + to_frame[:, 2]
        here = box_around(outline, _MARGIN)
        below = picture[here]
        cover = _filled(outline - (here[1].start, here[0].start), below.shape[:2])
        inside = self._colours(canvas[here] - self._middle, opening)
        below[:] = _cover(below.astype(np.float32), inside, cover * min(1.0, opening.gap / _SHUT))

    def _colours(self, places: Floats, opening: Opening) -> Floats:
        """RGB `[h, w, 3]` of the inside at `places` `[h, w, 2]` from the middle between the corners."""
        x, y = places[..., 0], places[..., 1]
        across = np.abs(x)
        stand = opening.stand
        depth = _edge(y - opening.top, max(opening.gap, 1))
        colours = self._cavity * (0.45 + 0.55 * depth)[..., None]

        tongue_top = opening.bottom - (0.10 + 0.75 * stand.tongue) * opening.gap
        arch = 0.06 * EYE_DISTANCE * (x / opening.half_width) ** 2
        tongue = _edge(y - tongue_top - arch, 1.5) * _edge(0.75 * opening.half_width - across, 2)
        colours = _cover(colours, self._tongue, tongue * (0.45 + 0.55 * stand.tongue))

        gaps = 0.82 + 0.18 * np.sqrt(np.abs(np.sin(np.pi * x / _TOOTH_WIDTH)))
        shade = gaps * (1 - 0.5 * np.clip(across / opening.half_width, 0, 1) ** 2)
        teeth = self._teeth * shade[..., None]
        upper_edge = self._mouth.seam + _UPPER_ROW * (1 - 0.45 * (1 - stand.teeth)) - 0.4 * opening.lift
        upper = _edge(upper_edge - y, 1.2) * _edge(0.86 * opening.half_width - across, 2)
        if stand.tongue > 0.8:  # the tip of the tongue is seen before the teeth
            upper = upper * _edge(tongue_top - y + 0.75, 1.5)
        colours = _cover(colours, teeth, upper * min(1.0, 0.15 + 1.2 * stand.teeth))

        if opening.jaw_drop > 0.06 * EYE_DISTANCE:
            lower_edge = self._mouth.seam + opening.jaw_drop - _LOWER_ROW
            lower = _edge(y - lower_edge, 1.2) * _edge(0.65 * opening.half_width - across, 2)
            colours = _cover(colours, 0.8 * teeth, 0.5 * stand.teeth * lower)
        return colours


def _edge(distance: Floats, softness: float) -> Floats:
    """1 well inside, 0 outside, a ramp of `softness` pixels between."""
    return (distance / softness).clip(0, 1)


def _cover(below: Floats, above: Floats, amount: Floats) -> Floats:
    return below + (above - below) * amount[..., None]


def box_around(outline: Floats, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a picture that hold an outline `[N, 2]` (x, y) and a margin around it."""
    (left, top), (right, bottom) = outline.min(0), outline.max(0)
    rows = slice(max(0, int(top) - margin), int(bottom) + margin + 2)
    columns = slice(max(0, int(left) - margin), int(right) + margin + 2)
    return rows, columns


def _filled(outline: Floats, shape: tuple[int, ...]) -> Floats:
    """Share of each pixel of a mask `[h, w]` that lies within the outline `[N, 2]`."""
    mask = np.zeros(shape, np.uint8)
    corners = np.round(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return np.asarray(cv2.GaussianBlur(mask, (3, 3), 0.5), np.float32) / 255
