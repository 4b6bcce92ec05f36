"""Separation of an object from the plain ground of its picture, by colour."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.data.sources.palette import delta_e, to_lab

CONTRAST = 12.0  # CIE76 difference from the ground from which on a pixel is the object's
MOST = 0.9  # share of the picture from which on no ground was recognised
MARGIN = 0.04  # of the object's longer side, around it


def cutout(picture: np.ndarray) -> np.ndarray:
    """Separate an object from the ground of its picture (H,W,3) uint8, the median colour of the border.

    Returns:
        (H,W) float32, 1 = object; all of the picture where nothing stands out.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    ground = np.median(border, axis=0).astype(np.uint8)[None]
    alpha = (delta_e(to_lab(picture), to_lab(ground)) > CONTRAST).astype(np.float32)
    return alpha if alpha.any() else np.ones_like(alpha)


def focused(picture: np.ndarray) -> np.ndarray:
    """Enlarge the object of a picture (H,W,3) uint8 to the picture's size; a picture without a plain ground stays."""
    alpha = cutout(picture).astype(np.uint8)
    # specks of noise are no part of the object
    opened = cv2.morphologyEx(alpha, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    alpha = opened if opened.any() else alpha
    x, y, width, height = cv2.boundingRect(alpha)
    if alpha.mean() > MOST or max(width / picture.shape[1], height / picture.shape[0]) > MOST:
        return picture
    side = max(width, height) * (1 + 2 * MARGIN)
    scale = min(picture.shape[:2]) / side
    centre = x + width / 2, y + height / 2
    shift = [picture.shape[1 - axis] / 2 - scale * centre[axis] for axis in (0, 1)]
    matrix = np.array([[scale, 0, shift[0] + (scale - 1) / 2], [0, scale, shift[1] + (scale - 1) / 2]])
    return cv2.warpAffine(picture, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
