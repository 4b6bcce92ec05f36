"""Resizing of images and drawings of any size and aspect to a square, without losing thin strokes."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError

FITS = ("crop", "pad")


def check_fit(fit: str) -> None:
    """Raise UserError unless `fit` is known."""
    if fit not in FITS:
        raise UserError(f"data.fit={fit}: must be one of {', '.join(FITS)}")


def square_crop(picture: np.ndarray) -> np.ndarray:
    """Crop (H, W) or (H, W, C) to its central square, as a view."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _inner_size(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Scale a height and width to fit a square of `size`, keeping the aspect; at least 1."""
    scale = size / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _padded(picture: np.ndarray, size: int, value: np.ndarray | float) -> np.ndarray:
    """Centre the picture in a square filled with `value`."""
    out = np.empty((size, size, *picture.shape[2:]), picture.dtype)
    out[:] = value
    top, left = (size - picture.shape[0]) // 2, (size - picture.shape[1]) // 2
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out


def fit_image(image: np.ndarray, size: int, fit: str = "crop", ground: str = "edge") -> np.ndarray:
    """Resize an image to a square, keeping its aspect.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square in pixels.
        fit: "crop" takes the central square, "pad" the whole image.
        ground: Colour of the padding: "edge" for the median colour of the image's border, "white".

    Returns:
        (size, size, 3) uint8.

    Raises:
        UserError: The fit is unknown.
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
    """Resize a drawing to a square, keeping its aspect.

    Args:
        drawing: (H, W) float in [0, 1], 1 = stroke.
        size: Side of the square in pixels.
        fit: "crop" takes the central square, "pad" the whole drawing; padding has no stroke.

    Returns:
        (size, size) float32 in [0, 1].

    Raises:
        UserError: The fit is unknown.
    """
    check_fit(fit)
    strokes = square_crop(drawing) if fit == "crop" else drawing
    return _padded(resize_strokes(strokes, *_inner_size(strokes.shape, size)), size, 0.0)


def resize_strokes(strokes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize strokes, preserving their contrast.

    Shrinking halves step by step with the mean of area and maximum, since area alone fades a thin line away
    and the maximum alone makes it coarse; enlarging sharpens the edges that interpolation blurs.

    Args:
        strokes: (H, W) in [0, 1], 1 = stroke.
        height: Target height in pixels.
        width: Target width in pixels.

    Returns:
        (height, width) float32 in [0, 1].
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
