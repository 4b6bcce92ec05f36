"""Maps of COCO's annotations at an item's resolution: polygons and run lengths, panoptic and stuff PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.buckets import Size
from ragaf_exp.data.decode import decode
from ragaf_exp.data.fit import crop_window

SHIFT = 4  # bits of a polygon's subpixel coordinates
# EXIF orientation -> the turn of an array that makes it upright
TURNS = {
    2: lambda m: m[:, ::-1], 3: lambda m: m[::-1, ::-1], 4: lambda m: m[::-1], 5: lambda m: m.T,
    6: lambda m: np.rot90(m, -1), 7: lambda m: m[::-1, ::-1].T, 8: lambda m: np.rot90(m),
}  # fmt: skip


class Window(NamedTuple):
    """The transformation from an image's pixels to those of the item, as data.fit makes it."""

    height: int  # of the image
    width: int
    size: Size  # height and width of the item
    scale: tuple[float, float]  # down and across
    top: float  # row of the item at which the image's first row lies
    left: float


def window(height: int, width: int, size: Size, fit: str) -> Window:
    """Compute the transformation.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        size: Height and width of the item, in pixels.
        fit: "crop" or "pad", as in data.fit.
    """
    if fit == "crop":
        top, left, rows, columns = crop_window((height, width), size)
        down, across = size[0] / rows, size[1] / columns
        return Window(height, width, size, (down, across), -top * down, -left * across)
    scale = min(size[0] / height, size[1] / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    return Window(height, width, size, (scale, scale), (size[0] - rows) // 2, (size[1] - columns) // 2)


def draw_annotations(annotations: Iterable[tuple[int, dict[str, Any]]], frame: Window) -> np.ndarray:
    """Draw segmentations, the largest first, so that small things stay visible.

    Args:
        annotations: (label from 1 to 255, annotation with segmentation and area).
        frame: The item's window.

    Returns:
        (H, W) uint8 of the item's size, 0 = none.
    """
    labels = np.zeros(frame.size, np.uint8)
    ordered = sorted(annotations, key=lambda pair: -pair[1].get("area", 0))
    parts = [annotation["segmentation"] for _, annotation in ordered]
    outlines = _outlines([polygon for part in parts if not isinstance(part, dict) for polygon in part], frame)
    for label, annotation in ordered:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict):
            labels[warp_nearest(decode_rle(segmentation), frame) > 0] = label
            continue
        for _ in segmentation:  # one by one, since they may overlap
            # the pixels that the outline touches are filled too, so that thin things stay; pycocotools leaves out half
            cv2.fillPoly(labels, [next(outlines)], label, lineType=cv2.LINE_8, shift=SHIFT)
    return labels


def _outlines(polygons: list[list[float]], frame: Window) -> Iterator[np.ndarray]:
    """Convert polygons [x0, y0, x1, y1, ...] in the image's pixels to OpenCV's fixed point in the item's, all at once.

    Raises UserError for a polygon that lacks a coordinate.
    """
    if any(len(polygon) % 2 for polygon in polygons):
        raise UserError("data=coco: a polygon lacks a coordinate; fetch the annotations again, or set data.objects=false")
    values = np.array(list(chain.from_iterable(polygons)), np.float64).reshape(-1, 2)
    points = values * np.array(frame.scale[::-1]) + np.array((frame.left, frame.top)) - 0.5
    fixed = np.rint(points * (1 << SHIFT)).astype(np.int32)
    ends = accumulate(len(polygon) // 2 for polygon in polygons)
    return (fixed[end - len(polygon) // 2 : end] for polygon, end in zip(polygons, ends, strict=True))


def decode_rle(segmentation: dict[str, Any]) -> np.ndarray:
    """Decode a run-length mask, compressed or not, to (H, W) uint8, with pycocotools. Raises UserError without it."""
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError("data=coco: masks of crowds need pycocotools; pip install 'ragaf_exp[coco]', or set "
                        "data.objects=false") from None  # fmt: skip
    height, width = segmentation["size"]
    if isinstance(segmentation["counts"], list):
        segmentation = mask.frPyObjects(segmentation, height, width)
    return mask.decode(segmentation)


def warp_nearest(labels: np.ndarray, frame: Window) -> np.ndarray:
    """Sample a label map (H, W) at the item's pixel centres; 0 outside the image."""
    down, across = (np.arange(side) + 0.5 for side in frame.size)
    rows = np.floor((down - frame.top) * labels.shape[0] / (frame.height * frame.scale[0])).astype(int)
    columns = np.floor((across - frame.left) * labels.shape[1] / (frame.width * frame.scale[1])).astype(int)
    sampled = labels[rows.clip(0, labels.shape[0] - 1)][:, columns.clip(0, labels.shape[1] - 1)]
    inside = ((rows >= 0) & (rows < labels.shape[0]))[:, None] & ((columns >= 0) & (columns < labels.shape[1]))
    return np.where(inside, sampled, 0)


def read_panoptic(path: Path) -> np.ndarray:
    """Read a panoptic PNG as segment ids (H, W) int64: R + 256 G + 65536 B. Raises UserError."""
    rgb = decode(path)[0].astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
