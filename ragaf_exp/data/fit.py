"""Brings pictures and drawings of any size and aspect to a square, without losing thin strokes."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError

FITS = ("crop", "pad")


def check_fit(fit: str) -> None:
    """Raises UserError unless `fit` is known."""
    if fit not in FITS:
        raise UserError(f"data.fit={fit}: must be one of {', '.join(FITS)}")


def square_crop(picture: np.ndarray) -> np.ndarray:
    """The central square of (H, W) or (H, W, C): a view."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _inner_size(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Height and width in a square of `size` that keep the aspect, at least 1."""
    scale = size / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _padded(picture: np.ndarray, size: int, value: np.ndarray | float) -> np.ndarray:
    """The picture in the middle of a square filled with `value`."""
    out = np.empty((size, size, *picture.shape[2:]), picture.dtype)
    out[:] = value
    top, left = (size - picture.shape[0]) // 2, (size - picture.shape[1]) // 2
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out


def fit_image(image: np.ndarray, size: int, fit: str = "crop", ground: str = "edge") -> np.ndarray:
    """uint8 (H, W, 3) to (size, size, 3), aspect kept.

    fit "crop": the central square; "pad": the whole picture on the median colour of its border (ground
    "edge") or on white ("white"). Raises UserError for an unknown fit.
    """
    check_fit(fit)
    picture = square_crop(image) if fit == "crop" else image
    height, width = _inner_size(picture.shape, size)
    shrinks = height < picture.shape[0]
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if fit == "crop":
        return resized
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    colour = np.median(edges, axis=0).astype(np.uint8) if ground == "edge" else np.uint8(255)
    return _padded(resized, size, colour)


def fit_drawing(drawing: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Strokes (H, W) float in [0, 1] to float32 (size, size), aspect kept; padding has no stroke.

    Raises UserError for an unknown fit.
    """
    check_fit(fit)
    strokes = square_crop(drawing) if fit == "crop" else drawing
    return _padded(resize_strokes(strokes, *_inner_size(strokes.shape, size)), size, 0.0)


def resize_strokes(strokes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Strokes (H, W) in [0, 1] to float32 (height, width) with their contrast kept.

    Shrinking halves step by step with the mean of area and maximum, since area alone fades a thin line away
    and the maximum alone makes it coarse; growing sharpens the edges that interpolation blurs.
    """
    strokes = np.ascontiguousarray(strokes, np.float32)
    if strokes.shape[0] >= height and strokes.shape[1] >= width:
        return _shrink(strokes, height, width)
    scale = max(height / strokes.shape[0], width / strokes.shape[1])
    grown = cv2.resize(strokes, (width, height), interpolation=cv2.INTER_CUBIC)
    gain = 1 + 0.5 * min(scale - 1, 4)
    return np.clip((grown - 0.45) * gain + 0.45, 0, 1)


def _shrink(strokes: np.ndarray, height: int, width: int) -> np.ndarray:
    peak = float(strokes.max(initial=0.0))
    while strokes.shape[0] >= 2 * height and strokes.shape[1] >= 2 * width:
        even = np.pad(strokes, ((0, strokes.shape[0] % 2), (0, strokes.shape[1] % 2)))
        blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
        strokes = (blocks.mean((1, 3)) + blocks.max((1, 3))) / 2
    small = cv2.resize(np.ascontiguousarray(strokes), (width, height), interpolation=cv2.INTER_AREA)
    inked = small[small > 0.1 * peak]
    if peak == 0 or not len(inked):
        return np.zeros((height, width), np.float32)
    # the usual strength of the strokes' middles, so that thin drawings come out as dark as thick ones
    usual = float(np.quantile(inked, 0.8))
    return np.clip(small * (peak / usual), 0, 1) if usual < peak else small
