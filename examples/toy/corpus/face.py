"""One speaker's face, drawn frame by frame.

Two smooth displacements move the face at rest, one for everything above the mouth's seam and one for
everything below, so that the lips can part. Both include the head's motion: each pixel of a frame is looked
up once in the image of the face at rest. The inside of the mouth is painted into the gap.
"""

from typing import NamedTuple

import cv2
import numpy as np

from corpus import look, warp
from corpus.camera import CameraNoise
from corpus.look import CANVAS, EYE_DISTANCE, Look
from corpus.mouth import Lips, Mouth, box_around
from corpus.script import Expression
from corpus.visemes import DIMENSIONS, Viseme
from corpus.warp import Floats, Image

NODE_STEP = 4  # pixels between the places of a frame where the displacement is computed

# Points of the 468-point face mesh.
_STILL = [1, 2, 98, 327, 33, 133, 362, 263, 50, 280, 234, 454, 10]  # nose, eyes, cheek bones, sides, brow
_CHEEKS = {205: -1.0, 425: 1.0, 36: -1.0, 266: 1.0}  # the way they go when the mouth widens
_JAW = {152: 0.9, 176: 0.8, 400: 0.8, 149: 0.65, 378: 0.65, 136: 0.35, 365: 0.35, 172: 0.22, 397: 0.22}
_JAW |= {58: 0.1, 288: 0.1, 18: 0.95, 200: 0.95}  # share of the jaw's drop
_FOREHEAD = 10
_BROWS = {  # upper edges, right and left, and where between the outer (0) and the inner end (1) each point is
    70: 0.0, 63: 0.25, 105: 0.5, 66: 0.75, 107: 1.0, 300: 0.0, 293: 0.25, 334: 0.5, 296: 0.75, 336: 1.0,
}  # fmt: skip
_STEPS = (0.0, CANVAS / 2, CANVAS - 1.0)
# Corners and edge middles of the canvas, which never move.
_BORDER = np.array([(x, y) for x in _STEPS for y in _STEPS if (x, y) != (_STEPS[1], _STEPS[1])])
_REST = Expression()
_CHEEK_SHIFT = 0.06 * EYE_DISTANCE
_NECK_SHARE = 0.3  # of the jaw's drop
_TEETH_MARGIN = 0.25  # share of the lip that is left out at its inner edge, where the photograph shows teeth
_SEAM_SOFTNESS = 0.12 * EYE_DISTANCE  # width of the transition between upper and lower face outside the mouth
_SEAM_SHADOW = 0.45


class LipTruth(NamedTuple):
    """Where the lips are, in pixels: `centre` of the outer ring `[T, 2]`, inner `gap` and `width` `[T]`."""

    centre: Floats
    gap: Floats
    width: Floats


class TalkingFace:
    """Draws one speaker in square frames of `size` pixels (a multiple of 4); brows move if `expressive`."""

    def __init__(self, speaker: Look, size: int, expressive: bool = False) -> None:
        self._look, self._size = speaker, size
        self._mouth = Mouth(speaker)
        points = speaker.landmarks.astype(np.float64)
        # Points that merely could move would hold the skin around them: without expressions brows have none.
        self._brows = _BROWS if expressive else {}
        moving = [points[list(part)] for part in (_CHEEKS, _JAW)]
        neck = points[152] + EYE_DISTANCE * np.array([[-0.5, 0.35], [0.0, 0.35], [0.5, 0.35]])
        shared = np.vstack([points[_STILL], _BORDER, *moving, neck, points[list(self._brows)]])
        self._shared = shared
        sides = []
        for outer, inner in ((look.UPPER_OUTER, look.UPPER_INNER), (look.LOWER_OUTER, look.LOWER_INNER)):
            edge = points[inner] + _TEETH_MARGIN * (points[outer] - points[inner])
            sides.append(np.vstack([points[outer], edge, shared]))
        self._at_rest = np.stack(sides)
        highest = [_FOREHEAD] if expressive else [look.RIGHT_EYE, look.LEFT_EYE]
        self._unmoved = float(points[highest, 1].min())
        self._pixels = warp.grid(np.arange(size))
        self._nodes = warp.grid(np.arange(0, size, NODE_STEP) + (NODE_STEP - 1) / 2)

    def render(
        self,
        track: Floats,
        head: Floats,
        light: Floats,
        rng: np.random.Generator,
        expression: Expression = _REST,
    ) -> tuple[Image, LipTruth]:
        """Frames uint8 RGB `[T, S, S, 3]` from a viseme track `[T, 7]`, head `[T, 2, 3]` and light `[T]`."""
        lips = self._mouth.lips(np.asarray(track, np.float64), expression.corners)
        points = self._control_points(lips, track, expression)
        fields = warp.fit(points, self._at_rest - points)
        frames = np.empty((len(track), self._size, self._size, 3), np.uint8)
        noise = CameraNoise(self._size, rng)
        for t, shape in enumerate(track):
            to_canvas = cv2.invertAffineTransform(head[t])
            canvas = _transform(self._pixels, to_canvas)
            back = self._displacement(points[t], fields[t], to_canvas, canvas, lips, t)
            image = warp.look_up(self._look.image, canvas, back)
            self._mouth.paint(image, canvas, head[t], lips, t, Viseme(*shape))
            _shade_seam(image, lips, t, head[t])
            frames[t] = cv2.addWeighted(image, light[t], noise(), 1, 0, dtype=cv2.CV_8U)
        return frames, _lip_truth(lips, head)

    def _control_points(self, lips: Lips, track: Floats, expression: Expression) -> Floats:
        """Where the points `_at_rest` go, for the upper and the lower face: `[T, 2, N, 2]`."""
        shared = np.tile(self._shared, (len(track), 1, 1))
        cheeks = len(_STILL) + len(_BORDER)
        jaw = cheeks + len(_CHEEKS)
        neck = jaw + len(_JAW)
        brows = shared.shape[1] - len(self._brows)
        widening = track[:, DIMENSIONS.index("width")] - 1
        shared[:, cheeks:jaw, 0] += _CHEEK_SHIFT * np.outer(widening, list(_CHEEKS.values()))
        shared[:, jaw:neck, 1] += np.outer(lips.jaw_drop, list(_JAW.values()))
        shared[:, neck:brows, 1] += _NECK_SHARE * lips.jaw_drop[:, None]
        inner = np.array(list(self._brows.values()))
        shared[:, brows:, 1] -= EYE_DISTANCE * (expression.brows + expression.inner_brows * inner)
        upper = np.concatenate([lips.upper_outer, lips.upper_inner, shared], axis=1)
        lower = np.concatenate([lips.lower_outer, lips.lower_inner, shared], axis=1)
        return np.stack([upper, lower], axis=1)

    def _displacement(
        self, points: Floats, fields: Floats, to_canvas: Floats, canvas: Floats, lips: Lips, frame: int
    ) -> Floats:
        """From each pixel's place on the canvas to where its colour is in the face at rest: `[S, S, 2]`."""
        first, last, below = self._below_seam(canvas, lips, frame)
        nodes = _transform(self._nodes, to_canvas)
        # Each field is computed only where it is used, and one node beyond, which interpolation needs. Above
        # the eyes, or an expressive face's brows, nothing moves.
        unmoved = int(np.searchsorted(nodes[:, :, 1].max(1), self._unmoved))
        upper_nodes = slice(unmoved, last // NODE_STEP + 2)
        lower_nodes = slice(max(0, first // NODE_STEP - 1), len(nodes))
        parts = []
        for part, rows in enumerate((upper_nodes, lower_nodes)):
            coarse, places = np.zeros_like(nodes), nodes[rows]
            found = warp.evaluate(fields[part], points[part], places.reshape(-1, 2))
            coarse[rows] = found.reshape(places.shape)
            parts.append(warp.finely(coarse, nodes, self._size))
        upper, lower = parts
        upper[first:last] += (lower[first:last] - upper[first:last]) * below[..., None]
        upper[last:] = lower[last:]
        return upper

    def _below_seam(self, canvas: Floats, lips: Lips, frame: int) -> tuple[int, int, Floats]:
        """Rows `first` to `last` that the seam crosses, and how far below it their pixels are: 0 to 1."""
        seam = (lips.upper_inner[frame] + lips.lower_inner[frame]) / 2
        ends = canvas[:, [0, -1], 1]
        first = int(np.searchsorted(ends.max(1), seam[:, 1].min() - _SEAM_SOFTNESS))
        last = int(np.searchsorted(ends.min(1), seam[:, 1].max() + _SEAM_SOFTNESS))
        x, y = canvas[first:last, :, 0], canvas[first:last, :, 1]
        distance = y - np.interp(x, seam[:, 0], seam[:, 1]).astype(np.float32)
        sharp = (distance / 0.7 + 0.5).clip(0, 1)
        soft = (distance / _SEAM_SOFTNESS + 0.5).clip(0, 1)
        reach = lips.width[frame] / 2
        outside = ((np.abs(x - self._mouth.middle[0]) - reach) / (0.1 * EYE_DISTANCE)).clip(0, 1)
        return first, last, sharp + (soft - sharp) * outside.astype(np.float32)


def _transform(places: Floats, matrix: Floats) -> Floats:
    return np.asarray(cv2.transform(places, matrix.astype(np.float32)))


def _lip_truth(lips: Lips, head: Floats) -> LipTruth:
    """Where the lips are in the frames."""
    ring = np.concatenate([lips.upper_outer, lips.lower_outer], axis=1).mean(1)
    centre = np.einsum("tij,tj->ti", head[:, :, :2], ring) + head[:, :, 2]
    scale = np.linalg.norm(head[:, 0, :2], axis=1)
    return LipTruth(centre, lips.gap * scale, lips.width * scale)


def _shade_seam(image: Image, lips: Lips, frame: int, to_frame: Floats) -> None:
    """Darken the line where shut lips meet, in place."""
    strength = _SEAM_SHADOW * float(np.clip(1 - lips.gap[frame] / 6, 0, 1))
    if strength == 0:
        return
    seam = (lips.upper_inner[frame] + lips.lower_inner[frame]) / 2 @ to_frame[:, :2].T + to_frame[:, 2]
    here = box_around(seam, 3)
    line = np.zeros(image[here].shape[:2], np.uint8)
    places = np.round((seam - (here[1].start, here[0].start)) * 8).astype(np.int32)
    cv2.polylines(line, [places], False, 255, 1, cv2.LINE_AA, shift=3)
    shadow = cv2.GaussianBlur(line, (5, 5), 0.8).astype(np.float32)[..., None] / 255
    image[here] = image[here] * (1 - strength * shadow)
