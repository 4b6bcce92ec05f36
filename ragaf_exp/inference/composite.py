"""Edits that change what they must and nothing else: a crop around the hole, and the result pasted at full resolution.

A model works on squares of one size. `Crop` cuts that square out of an image of any size and aspect, with context
around the hole; `paste` puts the result back. Pixels outside the hole keep their bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.data.images import read_rgba

CONTEXT = 0.5  # of the hole's longer side, on each side of it


@dataclass(frozen=True)
class Picture:
    """An image file's pixels, with what has to survive an edit."""

    rgb: np.ndarray  # (H,W,3) uint8, in the file's colour space, not multiplied by alpha
    alpha: np.ndarray | None  # (H,W) uint8
    profile: bytes | None  # ICC profile

    def with_rgb(self, rgb: np.ndarray) -> Picture:
        """The picture with other colours."""
        return Picture(rgb, self.alpha, self.profile)

    def save(self, path: Path) -> None:
        """Write a PNG with the alpha channel and the colour profile."""
        pixels = self.rgb if self.alpha is None else np.dstack([self.rgb, self.alpha])
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", icc_profile=self.profile)
        write_bytes(path, buffer.getvalue())


def read_picture(path: str | Path) -> Picture:
    """Read an image file. Its colour profile is kept, not applied. Raises UserError."""
    rgb, alpha = read_rgba(path)
    with Image.open(path) as file:
        profile = file.info.get("icc_profile")
    opaque = bool((alpha == 1).all())
    return Picture(rgb, None if opaque else np.rint(alpha * 255).astype(np.uint8), profile)


def check_sizes(image: np.ndarray, mask: np.ndarray, image_path: object, mask_path: object) -> None:
    """Check that a mask belongs to an image.

    Args:
        image: (H,W,3).
        mask: (H,W).
        image_path: For the message.
        mask_path: For the message.

    Raises:
        UserError: The sizes differ.
    """
    if image.shape[:2] != mask.shape:
        (height, width), (rows, columns) = image.shape[:2], mask.shape
        raise UserError(f"{mask_path}: is {columns}x{rows}, and {image_path} is {width}x{height}; "
                        "save the mask at the image's size")  # fmt: skip


@dataclass(frozen=True)
class Crop:
    """A square window of an image, which may reach beyond the frame, and the side at which a model sees it."""

    top: int
    left: int
    side: int  # pixels of the image
    size: int  # pixels of the model

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Cut the window out of (H,W) or (H,W,C), at its own resolution; beyond the frame, pixels are mirrored."""
        rows = _mirrored(np.arange(self.top, self.top + self.side), picture.shape[0])
        columns = _mirrored(np.arange(self.left, self.left + self.side), picture.shape[1])
        return picture[rows[:, None], columns]

    def image(self, picture: np.ndarray) -> np.ndarray:
        """Return the window (size,size,3) uint8 as the model sees it."""
        return _resized(self.cut(picture), self.size)

    def hole(self, mask: np.ndarray) -> np.ndarray:
        """Return the hole (size,size) bool as the model sees it: every pixel that any part of it touches."""
        return _resized(self.cut(mask).astype(np.float32), self.size) > 1e-3

    def paste(self, picture: np.ndarray, result: np.ndarray, mask: np.ndarray, feather: float = 0.0) -> np.ndarray:
        """Put a model's result back into the image.

        Args:
            picture: (H,W,3) uint8.
            result: (size,size,3) uint8.
            mask: (H,W) bool, True = hole.
            feather: Width in pixels over which the result fades in from the hole's edge, within the hole; 0 = none.

        Returns:
            (H,W,3) uint8, equal to `picture` outside the hole.
        """
        full = _resized(result, self.side)
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.side, picture.shape[0]), min(self.left + self.side, picture.shape[1])
        placed = picture.copy()
        placed[top:bottom, left:right] = full[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return paste(picture, placed, mask, feather)


def painted_pixels(hole: np.ndarray, reach: np.ndarray | None, crop: Crop) -> np.ndarray:
    """Return the pixels that a result replaces: the hole and what the task may change around it.

    Args:
        hole: (H,W) bool.
        reach: (size,size) float, 1 where the task may change the model's image; None = in the hole alone.
        crop: The window that the model sees.

    Returns:
        (H,W) bool.
    """
    if reach is None:
        return hole
    full = np.zeros((*hole.shape, 3), np.uint8)
    levels = np.repeat(np.rint(reach * 255).astype(np.uint8)[..., None], 3, axis=2)
    return hole | (crop.paste(full, levels, np.ones_like(hole))[..., 0] > 127)


def crop_around(mask: np.ndarray, size: int, context: float = CONTEXT, whole: bool = False) -> Crop:
    """Choose the window in which a model of side `size` works.

    Args:
        mask: (H,W) bool, True = hole.
        size: Side of the model's images.
        context: Margin around the hole, as a share of its longer side.
        whole: Take the whole image, padded to a square, instead of a window around the hole.

    Returns:
        The window: the hole with its context, at least `size` pixels if the image has them.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if whole or not len(rows):
        side = max(height, width)
        return Crop((height - side) // 2, (width - side) // 2, side, size)
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(min(max(extent * (1 + 2 * context), size), max(height, width)))
    starts = [int((ends[0] + ends[-1] + 1 - side) // 2) for ends in (rows, columns)]
    top, left = (_within(start, side, length) for start, length in zip(starts, mask.shape, strict=True))
    return Crop(top, left, side, size)


def paste(picture: np.ndarray, result: np.ndarray, mask: np.ndarray, feather: float = 0.0) -> np.ndarray:
    """Take `result` in the hole and `picture` outside it.

    Args:
        picture: (H,W,3) uint8.
        result: (H,W,3) uint8.
        mask: (H,W) bool, True = hole.
        feather: Width in pixels, from the hole's edge inwards, over which the result blends into the known pixels
            around the hole, continued into it; what the hole covered never shows. 0 = none.

    Returns:
        (H,W,3) uint8, equal to `picture` outside the hole.
    """
    if not mask.any():
        return picture.copy()
    if feather > 0 and not mask.all():
        result = _feathered(picture, result, mask, feather)
    return np.where(mask[..., None], result, picture).astype(np.uint8)


def _feathered(picture: np.ndarray, result: np.ndarray, mask: np.ndarray, feather: float) -> np.ndarray:
    """Blend a result with the surroundings, continued into the hole, over a rim of `feather` pixels."""
    hole = mask.astype(np.uint8)
    around = cv2.inpaint(picture, hole, 3, cv2.INPAINT_TELEA)
    # the frame is no edge of the hole: beyond it nothing is known
    depth = cv2.distanceTransform(np.pad(hole, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    share = np.clip(depth / (feather + 1), 0, 1)[..., None]
    return np.rint(around + share * (result.astype(np.float32) - around))


def _within(start: int, side: int, length: int) -> int:
    """Shift a window into the frame, or centre it on the frame where it is larger."""
    return (length - side) // 2 if side >= length else min(max(start, 0), length - side)


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Reflect indices beyond the frame back into it."""
    period = max(1, 2 * (length - 1))
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros_like(index)


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    if picture.shape[0] == side:
        return picture
    shrinks = side < picture.shape[0]
    return cv2.resize(np.ascontiguousarray(picture), (side, side),
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)  # fmt: skip
