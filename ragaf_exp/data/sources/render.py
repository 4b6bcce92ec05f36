"""Rasterisation of shape scenes: anti-aliased objects, exact masks, tone-on-tone textures and hand-drawn strokes.

Coordinates are in 64ths of the image's shorter side ("units"); pixel i of an image of shorter side `size` covers units
[i, i + 1) * 64 / size. Polygons are filled at `supersample` times the size and averaged down over areas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ragaf_exp.data.sources.palette import OBJECT_COLOURS, TONES
from ragaf_exp.data.sources.shapes import POINTS, tremor

UNITS = 64.0
WALL = 3.2  # thickness of a hollow object's ring
RING = 0.58  # largest share of an object's depth for its ring
SLIT = 1.4  # narrowest part of a ring's hole
STRIPE_PERIOD, DOT_PITCH, DOT_RADIUS = 6.0, 4.6, 1.5
STROKE_MIDDLE, STROKE_SWING = (1.3, 1.6), 0.2  # stroke widths stay within 1.1 to 1.8 units
TREMOR = 0.3  # largest deviation of the drawing from the true outline
GAP_SHARE, GAP = 0.15, (1.0, 1.6)  # share of outlines with a gap, and its length
CHUNK = 16  # outline points drawn with one width
_SHIFT = 4  # fractional bits of cv2's coordinates


@dataclass(frozen=True)
class Grid:
    """A raster: the image's shorter side in pixels, the supersampling factor, height and width in pixels."""

    size: int
    supersample: int
    shape: tuple[int, int]

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in units."""
        return self.shape[1] * UNITS / self.size, self.shape[0] * UNITS / self.size

    @property
    def fine(self) -> float:
        """Supersampled pixels per unit."""
        return self.size * self.supersample / UNITS

    def fixed(self, points: np.ndarray) -> np.ndarray:
        """Convert units (K, 2) to cv2's fixed-point supersampled coordinates, whose integers are pixel centres."""
        return np.rint((points * self.fine - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def average(self, canvas: np.ndarray) -> np.ndarray:
        """Average supersampled uint8 (H*S, W*S) to float32 (H, W) in [0, 1]."""
        height, width = canvas.shape[0] // self.supersample, canvas.shape[1] // self.supersample
        return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def grid_for(height: int, width: int) -> Grid:
    """Choose the grid of an image: 4 x 4 samples per pixel, more for tiny images, fewer for large ones."""
    size = min(height, width)
    return Grid(size, 8 if size <= 32 else 4 if size <= 128 else 2, (height, width))


def _box(outline: np.ndarray, grid: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of pixels that an outline touches."""
    scale = grid.size / UNITS
    low = np.maximum(np.floor(outline.min(0) * scale).astype(int) - 1, 0)
    high = np.minimum(np.ceil(outline.max(0) * scale).astype(int) + 1, grid.shape[::-1])
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def hole_of(outline: np.ndarray, grid: Grid) -> np.ndarray:
    """Compute the inner contour (POINTS, 2) of a ring of thickness WALL along an outline, in units."""
    rows, columns = _box(outline, grid)
    corner = np.array([columns.start, rows.start]) * UNITS / grid.size
    shape = ((rows.stop - rows.start) * grid.supersample, (columns.stop - columns.start) * grid.supersample)
    solid = np.zeros(shape, np.uint8)
    cv2.fillPoly(solid, [grid.fixed(outline - corner)], 1, shift=_SHIFT)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
    inside = (depth > min(WALL * grid.fine, RING * float(depth.max()))).astype(np.uint8)
    # corners of a hole thinner than SLIT would be a pixel wide in some places and closed in others
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(1, round(SLIT * grid.fine)),) * 2)
    opened = cv2.morphologyEx(inside, cv2.MORPH_OPEN, brush)
    inside = opened if opened.any() else inside
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    steps = max(contours, key=len)[:, 0].astype(np.float32)
    positions = np.arange(POINTS) * len(steps) / POINTS
    index = np.arange(len(steps) + 1)
    ring = np.stack([np.interp(positions, index, np.r_[steps[:, i], steps[0, i]]) for i in (0, 1)], 1)
    smooth = sum(np.roll(ring, k, 0) for k in (-2, -1, 0, 1, 2)) / 5
    return ((smooth + 0.5) / grid.fine + corner).astype(np.float32)


def coverage(contours: list[np.ndarray], grid: Grid) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the box of pixels that the contours (even-odd) touch, and the share of each covered, in [0, 1]."""
    rows, columns = box = _box(contours[0], grid)
    corner = np.array([columns.start, rows.start]) * UNITS / grid.size
    shape = ((rows.stop - rows.start) * grid.supersample, (columns.stop - columns.start) * grid.supersample)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [grid.fixed(contour - corner) for contour in contours], 255, shift=_SHIFT)
    return box, grid.average(canvas)


def _ramp(distance: np.ndarray, grid: Grid) -> np.ndarray:
    """Convert signed distance in units to coverage in [0, 1], with an edge one pixel wide."""
    return np.clip(distance * (grid.size / UNITS) + 0.5, 0, 1)


def texture(fill: str, box: tuple[slice, slice], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Render stripes, or dots on a hexagonal lattice.

    Args:
        fill: "striped" or "dotted".
        box: Rows and columns to render.
        grid: The raster.
        rng: Random generator, for angle and phase.

    Returns:
        (h, w) in [0, 1]: share of the lighter tone at each pixel of the box.
    """
    rows, columns = box
    unit = UNITS / grid.size
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) * unit
    x = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] + 0.5) * unit
    angle, phase = rng.random() * np.pi, rng.random() * STRIPE_PERIOD
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if fill == "striped":
        fold = np.abs((across + phase) % STRIPE_PERIOD - STRIPE_PERIOD / 2)
        return _ramp(STRIPE_PERIOD / 4 - fold, grid)
    row_pitch = DOT_PITCH * np.sqrt(3) / 2
    row = np.round((across + phase) / row_pitch)
    dy = across + phase - row * row_pitch
    shifted = along + phase + row * (DOT_PITCH / 2)
    dx = shifted - np.round(shifted / DOT_PITCH) * DOT_PITCH
    return _ramp(DOT_RADIUS - np.sqrt(dx**2 + dy**2), grid)


def paint(canvas: np.ndarray, alpha: np.ndarray, box: tuple[slice, slice], colour: np.ndarray) -> None:
    """Blend a colour into a canvas, in place.

    Args:
        canvas: (H, W, 3) float32 in [0, 255].
        alpha: (h, w) in [0, 1], opacity within the box.
        box: Rows and columns to paint.
        colour: (3,) or (h, w, 3) in [0, 255].
    """
    patch = canvas[box]
    patch += alpha[..., None] * (colour - patch)


def object_colour(colour: str, fill: str, box: tuple[slice, slice], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Choose the colour or texture of an object.

    Args:
        colour: Name of an object colour.
        fill: plain, hollow, striped or dotted.
        box: Rows and columns of the object.
        grid: The raster.
        rng: Random generator, for the texture.

    Returns:
        (3,) one colour, or (h, w, 3) two tones of it, in [0, 255].
    """
    if fill not in ("striped", "dotted"):
        return np.array(OBJECT_COLOURS[colour], np.float32)
    dark, light = TONES[colour]
    share = texture(fill, box, grid, rng)[..., None]
    return dark + (light - dark) * share


def stroke(
    canvas: np.ndarray, contour: np.ndarray, grid: Grid, rng: np.random.Generator, gap: float, pen: float = 1.0
) -> None:
    """Draw a contour as by hand, with tremor and varying width.

    Args:
        canvas: (H*S, W*S) uint8, supersampled, drawn on in place.
        contour: (POINTS, 2) in units.
        grid: The raster.
        rng: Random generator.
        gap: Length of a gap in the outline, in units; 0 = closed.
        pen: Width of the pen, relative to the usual one.
    """
    points = grid.fixed(contour + tremor(rng, TREMOR))
    middle = pen * (STROKE_MIDDLE[0] + (STROKE_MIDDLE[1] - STROKE_MIDDLE[0]) * rng.random())
    phase, start = rng.random() * 2 * np.pi, int(rng.integers(POINTS))
    length = float(np.linalg.norm(np.diff(contour, axis=0), axis=1).sum())
    # round ends take half a width on either side of the gap
    skip = round((gap + middle) / length * POINTS) if gap else 0
    points = points[np.arange(start, start + POINTS + 1 - skip) % POINTS]
    for first in range(0, len(points) - 1, CHUNK):
        width = middle + pen * STROKE_SWING * math.sin(phase + first * 2 * math.pi / POINTS)
        # cv2 draws thick lines about 1.5 pixels wider than requested
        thickness = max(1, round(width * grid.fine - 1.5))
        line = points[first : first + CHUNK + 1]
        cv2.polylines(canvas, [line], False, 255, thickness, cv2.LINE_8, _SHIFT)
