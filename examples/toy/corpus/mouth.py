"""The shape of the mouth -> where the lips are, in pixels of the canvas, and what is visible between them."""

from typing import NamedTuple

import cv2
import numpy as np

from corpus.look import EYE_DISTANCE, LOWER_INNER, LOWER_OUTER, UPPER_INNER, UPPER_OUTER, Look
from corpus.visemes import Viseme
from corpus.warp import Floats, Image

POINTS = 11  # on each curve
MIDDLE = POINTS // 2
ACROSS = np.linspace(-1, 1, POINTS)  # from the left corner of the mouth to the right

# In eye distances.
_WIDEST_REST = 0.30  # half width: the astronaut smiles, which is not a mouth at rest
_JAW_DROP, _LIP_LIFT, _LIP_TUCK, _CORNER_DROP = 0.26, 0.12, 0.05, 0.04
_THINNEST_UPPER, _THINNEST_LOWER = 0.035, 0.055

_SUBPIXEL_BITS = 4  # cv2 draws in sixteenths of a pixel
_TOOTH_WIDTH = 0.075 * EYE_DISTANCE
_UPPER_ROW, _LOWER_ROW = 0.045 * EYE_DISTANCE, 0.035 * EYE_DISTANCE  # how far the teeth reach from the seam
_MARGIN = 2  # pixels around the opening, for the smoothing of its edge
_SHUT = 3.0  # pixels of the canvas: a smaller gap is filled with less and less of the inside


class Lips(NamedTuple):
    """Curves `[T, POINTS, 2]` (x, y) of the lips' edges, and what moved them, `[T]` in pixels."""

    upper_outer: Floats
    upper_inner: Floats
    lower_inner: Floats
    lower_outer: Floats
    jaw_drop: Floats
    lift: Floats

    @property
    def gap(self) -> Floats:
        """Distance between the inner edges at the middle, `[T]` pixels."""
        return self.lower_inner[:, MIDDLE, 1] - self.upper_inner[:, MIDDLE, 1]

    @property
    def width(self) -> Floats:
        """Distance between the corners, `[T]` pixels."""
        return self.upper_outer[:, -1, 0] - self.upper_outer[:, 0, 0]


class Mouth:
    """The lips of one speaker, and the inside of the mouth."""

    def __init__(self, look: Look) -> None:
        left, right = look.landmarks[UPPER_OUTER[0]], look.landmarks[UPPER_OUTER[-1]]
        self.middle: Floats = (left + right).astype(np.float64) / 2
        rings = (UPPER_OUTER, UPPER_INNER, LOWER_INNER, LOWER_OUTER)
        heights = [(look.landmarks[ring].astype(np.float64) - self.middle)[:, 1] for ring in rings]
        upper_outer, upper_inner, lower_inner, lower_outer = heights
        half_width = float(np.linalg.norm(right - left)) / 2
        self.half_width = min(half_width, _WIDEST_REST * EYE_DISTANCE) * look.mouth_width
        upper = max(_THINNEST_UPPER * EYE_DISTANCE, upper_inner[MIDDLE] - upper_outer[MIDDLE])
        lower = max(_THINNEST_LOWER * EYE_DISTANCE, lower_outer[MIDDLE] - lower_inner[MIDDLE])
        self.upper_thickness, self.lower_thickness = upper * look.lip_thickness, lower * look.lip_thickness
        self.mobility = look.mobility
        opening = lower_inner[MIDDLE] - upper_inner[MIDDLE]
        # Where teeth show in the photograph, the lips would meet just below the upper lip.
        self.seam = upper_inner[MIDDLE] + min(opening / 2, 0.03 * EYE_DISTANCE)
        self.corner = 0.35 * (upper_outer[0] + upper_outer[-1]) / 2 + 0.65 * self.seam
        colours = [colour.astype(np.float32) for colour in (look.teeth, look.tongue, look.cavity)]
        self._teeth, self._tongue, self._cavity = colours

    def lips(self, track: Floats, corner_lift: float = 0.0) -> Lips:
        """The lips in every frame of a viseme track `[T, 7]`, corners `corner_lift` eye distances higher."""
        jaw, lift, width, thickness, _, _, tuck = (column[:, None] for column in track.T)
        drop = _JAW_DROP * EYE_DISTANCE * np.maximum(jaw, 0) * self.mobility
        rise = _LIP_LIFT * EYE_DISTANCE * np.maximum(lift, 0)
        corner = self.corner + _CORNER_DROP * EYE_DISTANCE * np.maximum(jaw, 0) - corner_lift * EYE_DISTANCE
        seam = corner + (self.seam - corner) * (1 - ACROSS**2)
        bow = 1 - np.abs(ACROSS) ** 2.2
        upper_inner = seam - (rise + 0.1 * drop) * bow
        lower_inner = np.maximum(seam + (drop - _LIP_TUCK * EYE_DISTANCE * tuck) * bow, upper_inner)

        fullness = np.sqrt(1 - ACROSS**2)
        cupids_bow = 1 - 0.18 * np.exp(-((ACROSS / 0.12) ** 2))
        upper_outer = upper_inner - self.upper_thickness * thickness * fullness * cupids_bow
        lower_outer = lower_inner + self.lower_thickness * thickness * (1 - 0.45 * tuck) * fullness
        outer_x = self.half_width * width * ACROSS
        inner_x = outer_x * np.where(width > 0.7, 0.90, 0.82)
        curves = [
            (outer_x, upper_outer),
            (inner_x, upper_inner),
            (inner_x, lower_inner),
            (outer_x, lower_outer),
        ]
        return Lips(*(np.stack(curve, -1) + self.middle for curve in curves), drop[:, 0], rise[:, 0])

    def paint(
        self, image: Image, canvas: Floats, to_frame: Floats, lips: Lips, frame: int, shape: Viseme
    ) -> None:
        """Paint the opening of `lips` at `frame` into `image` uint8 RGB `[S, S, 3]`, in place.

        `canvas` `[S, S, 2]` is the place on the canvas of every pixel, `to_frame` `[2, 3]` the way back.
        """
        upper, lower = lips.upper_inner[frame], lips.lower_inner[frame]
        middle = self.middle.astype(np.float32)
        top, bottom = float(upper[MIDDLE, 1] - middle[1]), float(lower[MIDDLE, 1] - middle[1])
        half_width = float(max(upper[-1, 0] - middle[0], 1))
        opening = top, bottom, half_width, float(lips.jaw_drop[frame]), float(lips.lift[frame])
        gap = bottom - top
        if gap <= 0:
            return
        outline = np.vstack([upper, lower[::-1]]) @ to_frame[:, :2].T + to_frame[:, 2]
        here = box_around(outline, _MARGIN)
        below = image[here]
        cover = _filled(outline - (here[1].start, here[0].start), below.shape[:2])
        inside = self._colours(canvas[here] - middle, opening, shape)
        below[:] = _cover(below.astype(np.float32), inside, cover * min(1.0, gap / _SHUT))

    def _colours(self, places: Floats, opening: tuple[float, ...], shape: Viseme) -> Floats:
        """RGB `[h, w, 3]` of the inside at `places` `[h, w, 2]` from the middle between the corners.

        `opening`, in pixels: top, bottom and half width of the gap, drop of the jaw, lift of the lip.
        """
        top, bottom, half_width, jaw_drop, lift = opening
        x, y = places[..., 0], places[..., 1]
        across, gap = np.abs(x), bottom - top
        depth = _edge(y - top, max(gap, 1))
        colours = self._cavity * (0.45 + 0.55 * depth)[..., None]

        tongue_top = bottom - (0.10 + 0.75 * shape.tongue) * gap
        arch = 0.06 * EYE_DISTANCE * (x / half_width) ** 2
        tongue = _edge(y - tongue_top - arch, 1.5) * _edge(0.75 * half_width - across, 2)
        colours = _cover(colours, self._tongue, tongue * (0.45 + 0.55 * shape.tongue))

        gaps = 0.82 + 0.18 * np.sqrt(np.abs(np.sin(np.pi * x / _TOOTH_WIDTH)))
        shade = gaps * (1 - 0.5 * np.clip(across / half_width, 0, 1) ** 2)
        teeth = self._teeth * shade[..., None]
        upper_edge = self.seam + _UPPER_ROW * (1 - 0.45 * (1 - shape.teeth)) - 0.4 * lift
        upper = _edge(upper_edge - y, 1.2) * _edge(0.86 * half_width - across, 2)
        if shape.tongue > 0.8:  # the tip of the tongue covers the teeth
            upper = upper * _edge(tongue_top - y + 0.75, 1.5)
        colours = _cover(colours, teeth, upper * min(1.0, 0.15 + 1.2 * shape.teeth))

        if jaw_drop > 0.06 * EYE_DISTANCE:
            lower_edge = self.seam + jaw_drop - _LOWER_ROW
            lower = _edge(y - lower_edge, 1.2) * _edge(0.65 * half_width - across, 2)
            colours = _cover(colours, 0.8 * teeth, 0.5 * shape.teeth * lower)
        return colours


def _edge(distance: Floats, softness: float) -> Floats:
    """1 well inside, 0 outside, a ramp of `softness` pixels between."""
    return (distance / softness).clip(0, 1)


def _cover(below: Floats, above: Floats, amount: Floats) -> Floats:
    return below + (above - below) * amount[..., None]


def box_around(outline: Floats, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a frame that hold an outline `[N, 2]` (x, y) and a margin around it."""
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
