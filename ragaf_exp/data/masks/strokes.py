"""Shapes that holes are made of: strokes, boxes and silhouettes. Each function marks a mask (H, W) uint8 in place.

Lengths are given for a side of 512 pixels and scale with the mask's shorter side. LaMa: Suvorov et al. 2022,
arXiv 2109.07161, section 3.2 and its supplement. MAT: Li et al. 2022, arXiv 2203.15270.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ragaf_exp.data.sources.shapes import SHAPE_NAMES, SHAPES, pose

REFERENCE = 512.0  # side that the lengths below refer to
ANGLE = 4.0  # largest turn of an irregular stroke's segment, in radians
SEGMENTS = 5  # most segments of an irregular stroke
BRUSH_VERTICES = (4, 18)
BRUSH_ANGLE, BRUSH_SPREAD = 2 * math.pi / 5, 2 * math.pi / 15
BRUSH_WIDTH = (12.0, 48.0)
SILHOUETTE = (60.0, 150.0)  # bounding radii of silhouettes


def _unit(mask: np.ndarray) -> float:
    return min(mask.shape) / REFERENCE


def _line(mask: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> None:
    first, last = (tuple(np.rint(point).astype(int).tolist()) for point in (start, end))
    cv2.line(mask, first, last, 1, max(1, round(width)))


def irregular(rng: np.random.Generator, mask: np.ndarray, width: float, length: float, most: int) -> None:
    """Draw 1 to `most` irregular strokes, as LaMa's.

    Args:
        rng: Random generator.
        mask: (H, W) uint8, marked in place.
        width: Largest width of a stroke.
        length: Largest length of a segment.
        most: Largest number of strokes.
    """
    unit, frame = _unit(mask), np.array(mask.shape[::-1]) - 1
    for _ in range(int(rng.integers(1, most + 1))):
        point = rng.random(2) * frame
        for segment in range(int(rng.integers(1, SEGMENTS + 1))):
            angle = rng.random() * ANGLE
            angle = 2 * math.pi - angle if segment % 2 else angle
            reach = (10 + rng.random() * length) * unit
            end = np.clip(point + reach * np.array([math.sin(angle), math.cos(angle)]), 0, frame)
            _line(mask, point, end, (5 + rng.random() * width) * unit)
            point = end


def boxes(rng: np.random.Generator, mask: np.ndarray, low: float, high: float, most: int) -> None:
    """Mark 1 to `most` boxes, as LaMa's.

    Args:
        rng: Random generator.
        mask: (H, W) uint8, marked in place.
        low: Shortest side.
        high: Longest side.
        most: Largest number of boxes.
    """
    unit, (height, width) = _unit(mask), mask.shape
    for _ in range(int(rng.integers(1, most + 1))):
        sides = np.maximum(1, np.rint((low + rng.random(2) * (high - low)) * unit)).astype(int)
        rows, columns = np.minimum(sides, (height, width))
        top, left = (int(rng.integers(0, most + 1)) for most in (height - rows, width - columns))
        mask[top : top + rows, left : left + columns] = 1


def silhouettes(rng: np.random.Generator, mask: np.ndarray, most: int) -> None:
    """Mark 1 to `most` silhouettes of the scenes' shapes, turned and scaled: holes with the outline of an object.

    Args:
        rng: Random generator.
        mask: (H, W) uint8, marked in place.
        most: Largest number of silhouettes.
    """
    unit, frame = _unit(mask), np.array(mask.shape[::-1])
    for _ in range(int(rng.integers(1, most + 1))):
        shape = SHAPES[SHAPE_NAMES[int(rng.integers(len(SHAPE_NAMES)))]]
        radius = (SILHOUETTE[0] + rng.random() * (SILHOUETTE[1] - SILHOUETTE[0])) * unit
        outline = pose(shape, rng, radius, amount=0.06) + rng.random(2) * frame
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)


def brush(rng: np.random.Generator, mask: np.ndarray, tries: int) -> None:
    """Draw fewer than `tries` zigzag brush strokes with round joints, as MAT's.

    Args:
        rng: Random generator.
        mask: (H, W) uint8, marked in place.
        tries: One more than the largest number of strokes.
    """
    height, width = mask.shape
    unit, radius = _unit(mask), math.hypot(height, width) / 8
    for _ in range(int(rng.integers(tries))):
        low, high = BRUSH_ANGLE - rng.random() * BRUSH_SPREAD, BRUSH_ANGLE + rng.random() * BRUSH_SPREAD
        thickness = (BRUSH_WIDTH[0] + rng.random() * (BRUSH_WIDTH[1] - BRUSH_WIDTH[0])) * unit
        point = rng.random(2) * (width, height)
        for vertex in range(int(rng.integers(*BRUSH_VERTICES))):
            angle = low + rng.random() * (high - low)
            angle = angle if vertex % 2 else 2 * math.pi - angle
            reach = float(np.clip(rng.normal(radius, radius / 2), 0, 2 * radius))
            end = np.clip(point + reach * np.array([math.cos(angle), math.sin(angle)]), 0, (width, height))
            _line(mask, point, end, thickness)
            cv2.circle(mask, tuple(np.rint(end).astype(int).tolist()), max(0, round(thickness / 2)), 1, -1)
            point = end


def rectangles(rng: np.random.Generator, mask: np.ndarray, tries: int, largest: float) -> None:
    """Mark fewer than `tries` rectangles, which may cross the frame, as MAT's.

    Args:
        rng: Random generator.
        mask: (H, W) uint8, marked in place.
        tries: One more than the largest number of rectangles.
        largest: Longest side, as a share of the image's.
    """
    height, width = mask.shape
    for _ in range(int(rng.integers(tries))):
        rows, columns = int(rng.integers(max(1, int(height * largest)))), int(rng.integers(max(1, int(width * largest))))
        top = int(rng.integers(-(rows // 2), height - rows + rows // 2 + 1))
        left = int(rng.integers(-(columns // 2), width - columns + columns // 2 + 1))
        mask[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)] = 1
