"""Recognition of the scenes' shapes from masks: the template of the same centre and spread that overlaps most."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, label

from ragaf_exp.data.sources.shapes import SHAPE_NAMES, SHAPES

SIDE, SPREAD = 48, 11.0  # pixels of a normalised mask, and the root mean square distance of its pixels from their centre
TURNS = 15  # templates of each shape, reflection and growth
GROWTHS = (0, 6)  # in hundredths of the radius: the pixels of a small shape reach half a pixel beyond its outline


def shape_of(mask: np.ndarray) -> str:
    """Name the shape of a mask (H,W) bool, whose largest part counts, with holes filled; "" for fewer than 4 pixels."""
    parts, count = label(mask)
    if not count:
        return ""
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    solid = binary_fill_holes(parts == largest)
    if solid.sum() < 4:
        return ""
    normal = _normalised(solid)
    names, templates = _templates()
    both = (templates & normal).sum((1, 2))
    overlap = both / np.maximum((templates | normal).sum((1, 2)), 1)
    return names[int(overlap.argmax())]


def _normalised(mask: np.ndarray) -> np.ndarray:
    """Scale and centre a mask (H,W) bool: (SIDE,SIDE) bool."""
    y, x = np.nonzero(mask)
    centre = np.array([x.mean(), y.mean()])
    # a pixel is a square, which has a spread too
    spread = np.sqrt(((np.stack([x, y], 1) - centre) ** 2).sum(1).mean() + 1 / 6)
    scale = SPREAD / spread
    matrix = np.array([[scale, 0, SIDE / 2 - 0.5 - scale * centre[0]], [0, scale, SIDE / 2 - 0.5 - scale * centre[1]]])
    return cv2.warpAffine(mask.astype(np.float32), matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR) >= 0.5


@cache
def _templates() -> tuple[list[str], np.ndarray]:
    """Names and normalised masks (K,SIDE,SIDE) bool of all shapes: turned as far as scenes turn them, mirrored, grown."""
    names, masks = [], []
    for name in SHAPE_NAMES:
        for turn in np.linspace(-SHAPES[name].turn, SHAPES[name].turn, TURNS):
            for flip in (1, -1):
                matrix = np.array([[np.cos(turn) * flip, np.sin(turn) * flip], [-np.sin(turn), np.cos(turn)]])
                canvas = np.zeros((256, 256), np.uint8)
                cv2.fillPoly(canvas, [np.rint(SHAPES[name].outline @ matrix * 100 + 128).astype(np.int32)], 1)
                for growth in GROWTHS:
                    names.append(name)
                    masks.append(_normalised(cv2.dilate(canvas, np.ones((2 * growth + 1,) * 2, np.uint8)) > 0))
    return names, np.stack(masks)
