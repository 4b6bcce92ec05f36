"""Removal of the lines of graph paper and lined paper, which are fainter than the strokes, straight, long and many."""

from __future__ import annotations

import cv2
import numpy as np

WORKING = 512  # px, longer side of the copy in which lines are detected
FAINTEST, FAINT = 0.05, 0.5  # range of the strength of printed lines, relative to strokes
SOFT_EDGE = 3  # px around a stroke where its own edge may be faint
FEWEST = 0.5  # faint pixels per stroke pixel, from which on lines are searched for
LENGTH, LINES = 0.5, 6  # least length of a line as a share of the picture's side, least number of lines of a ruling


def without_ruling(strokes: np.ndarray) -> np.ndarray:
    """Remove the paper's printed lines from strokes (H, W) in [0, 1]; unchanged if there are none."""
    strong = (strokes > FAINT).astype(np.uint8)
    stroke = cv2.dilate(strong, np.ones((2 * SOFT_EDGE + 1,) * 2, np.uint8)) > 0
    faint = (strokes > FAINTEST) & ~stroke
    if not strong.any() or faint.sum() < FEWEST * strong.sum() or not _is_ruled(faint.astype(np.uint8) * 255):
        return strokes
    return np.where(stroke, strokes, np.float32(0))


def _is_ruled(faint: np.ndarray) -> bool:
    """Whether faint pixels, 255 of uint8 (H, W), form many long straight lines."""
    step = -(-max(faint.shape) // WORKING)
    if step > 1:
        faint = cv2.dilate(faint, np.ones((step, step), np.uint8), anchor=(0, 0))[::step, ::step]
    side = min(faint.shape)
    lines = cv2.HoughLinesP(
        np.ascontiguousarray(faint), 1, np.pi / 360, max(10, round(0.3 * side)),
        minLineLength=LENGTH * side, maxLineGap=0.08 * side,
    )  # fmt: skip
    return lines is not None and len(lines) >= LINES
