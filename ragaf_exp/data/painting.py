"""Colour hints: painted drawings separated into lines and hints, and random strokes, blobs and dots for training.

A hint is a pixel with a colour that the image should have there. Hints are an image (H,W,3) uint8, grey where there is
none, and a map (H,W) float, 1 = hint.
"""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.data.fit import as_size, fit_image
from ragaf_exp.data.masks import strokes
from ragaf_exp.data.sources.palette import OBJECT_COLOURS, OBJECT_LAB, delta_e, to_lab

GREY = 128  # of pixels without a hint
CHROMA = 18.0  # of CIELAB, from which on a pixel is coloured
WIDTH = 40.0  # largest width of a stroke at 512 pixels
LENGTH = 160.0  # largest length of a stroke's segment, likewise
DOT, BLOB = (8.0, 20.0), (20.0, 50.0)  # radii of dots and blobs, likewise
MOST = 6  # marks of one item
SAME = 10.0  # CIE76 difference up to which a pixel has the mark's colour
FAR = 30.0  # CIE76 difference of a wrong mark's colour from the truth, and of objects from the usual colour
OBJECTS = 0.7  # share of marks that begin on an object


def split_painting(painting: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Separate a drawing with colours on a light ground (H,W,3) uint8 into its lines and its colour hints.

    Grey and black pixels are lines, as dark as they are; coloured ones are hints.

    Returns:
        Lines (H,W) float32 in [0,1], 1 = stroke; hints (H,W,3) uint8; hinted (H,W) float32, 1 = hint.
    """
    lab = to_lab(painting)
    coloured = np.hypot(lab[..., 1], lab[..., 2]) >= CHROMA
    # an antialiased edge between a line and a colour has some of both; a single pixel is no mark
    coloured = cv2.morphologyEx(coloured.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
    paper = np.quantile(lab[..., 0], 0.95)
    lines = np.clip(1 - lab[..., 0] / max(paper, 1.0), 0, 1).astype(np.float32)
    lines[coloured] = 0
    return lines, np.where(coloured[..., None], painting, np.uint8(GREY)), coloured.astype(np.float32)


def fit_hints(
    hints: np.ndarray, hinted: np.ndarray, size: int | tuple[int, int], fit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Resize hints without mixing their colours with the ground.

    Args:
        hints: (H,W,3) uint8.
        hinted: (H,W) float, 1 = hint.
        size: Side of a square, or height and width, in pixels.
        fit: "crop" or "pad".

    Returns:
        Hints (height,width,3) uint8 and the map (height,width) float32.
    """
    # enlarging interpolates with overshoot; pixels repeated first are averaged instead
    factor = -(-max(as_size(size)) // min(hinted.shape))
    hints, hinted = (x.repeat(factor, 0).repeat(factor, 1) for x in (hints, hinted))
    mask = np.repeat((255 * hinted).astype(np.uint8)[..., None], 3, axis=2)
    cover = fit_image(mask, size, fit, "edge")[..., 0].astype(np.float32) / 255
    hidden = np.where(hinted[..., None] > 0, hints, 0).astype(np.uint8)
    sums = fit_image(hidden, size, fit, "edge").astype(np.float32)
    there = cover >= 0.25
    colours = np.clip(sums / np.maximum(cover, 0.25)[..., None], 0, 255)
    return np.where(there[..., None], np.rint(colours), GREY).astype(np.uint8), there.astype(np.float32)


def random_hints(rng: np.random.Generator, image: np.ndarray, wrong: float) -> tuple[np.ndarray, np.ndarray]:
    """Generate strokes, dots and blobs of one colour each, which stay on what has that colour in the image.

    Args:
        rng: Random generator.
        image: (H,W,3) uint8, the truth.
        wrong: Probability that a mark has another object's colour instead.

    Returns:
        Hints (H,W,3) uint8 and the map (H,W) float32.
    """
    lab = to_lab(image)
    hints, hinted = np.full_like(image, GREY), np.zeros(image.shape[:2], np.float32)
    for _ in range(int(rng.integers(0, MOST + 1))):
        point = _point(rng, lab)
        mark = _mark(rng, point, image.shape[:2]) & (delta_e(lab, lab[point]) < SAME)
        hints[mark] = _other_colour(rng, lab[point]) if rng.random() < wrong else image[point]
        hinted[mark] = 1
    return hints, hinted


def _point(rng: np.random.Generator, lab: np.ndarray) -> tuple[int, int]:
    """A pixel to mark: mostly one that differs from the usual colour, since people colour objects first."""
    rows, columns = np.nonzero(delta_e(lab, np.median(lab, axis=(0, 1))) > FAR)
    if len(rows) and rng.random() < OBJECTS:
        one = int(rng.integers(len(rows)))
        return int(rows[one]), int(columns[one])
    return int(rng.integers(lab.shape[0])), int(rng.integers(lab.shape[1]))


def _other_colour(rng: np.random.Generator, lab: np.ndarray) -> np.ndarray:
    """A colour of the palette (3,) uint8 that differs clearly from a CIELAB colour (3,)."""
    far = [rgb for rgb, other in zip(OBJECT_COLOURS.values(), OBJECT_LAB, strict=True) if delta_e(other, lab) > FAR]
    return np.array(far[int(rng.integers(len(far)))], np.uint8)


def _mark(rng: np.random.Generator, point: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """A stroke from a point, or a dot or blob around it: (H,W) bool."""
    mask, unit, kind = np.zeros(shape, np.uint8), min(shape) / strokes.REFERENCE, int(rng.integers(3))
    if kind == 0:
        _stroke(rng, mask, point, unit)
    else:
        low, high = DOT if kind == 1 else BLOB
        axes = np.maximum(1, np.rint((low + rng.random(2) * (high - low)) * unit)).astype(int)
        cv2.ellipse(mask, point[::-1], axes.tolist(), float(rng.random() * 180), 0, 360, 1, -1)
    return mask > 0


def _stroke(rng: np.random.Generator, mask: np.ndarray, point: tuple[int, int], unit: float) -> None:
    """Draw 1 to 3 segments from a point."""
    here, width = np.array(point[::-1], float), max(1, round((10 + rng.random() * WIDTH) * unit))
    for _ in range(int(rng.integers(1, 4))):
        angle, reach = rng.random() * 2 * np.pi, (20 + rng.random() * LENGTH) * unit
        following = np.clip(here + reach * np.array([np.cos(angle), np.sin(angle)]), 0, np.array(mask.shape[::-1]) - 1)
        cv2.line(mask, np.rint(here).astype(int).tolist(), np.rint(following).astype(int).tolist(), 1, width)
        here = following
