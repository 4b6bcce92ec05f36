"""Small affine maps and smooth displacement of strokes, in one interpolation."""

from __future__ import annotations

import cv2
import numpy as np

CELLS = 4  # of the displacement's grid, along the shorter side
MOST = 64  # most cells along the longer side


def move(sketch: np.ndarray, affine: float, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Warp a sketch; the outside of the picture is paper.

    Interpolation is cubic: linear interpolation halves a line one pixel wide between two pixels, and opens outlines.

    Args:
        sketch: (H,W) float32 in [0,1].
        affine: Largest affine distortion, as in Drawing.
        jitter: Largest smooth displacement, as in Drawing.
        rng: Random generator.

    Returns:
        (H,W) float32 in [0,1].
    """
    height, width = sketch.shape
    side = min(height, width)
    matrix = _matrix(affine, rng)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = centre - matrix @ centre + affine * side * rng.uniform(-1, 1, 2)
    x, y = np.arange(width), np.arange(height)[:, None]
    source = [np.float32(m[0] * x + t) + np.float32(m[1] * y) for m, t in zip(matrix, shift, strict=True)]
    if jitter:
        far = jitter * side * rng.random()
        source = [s + _smooth(height, width, far, rng) for s in source]
    moved = cv2.remap(sketch, *source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.clip(moved, 0, 1)


def _matrix(affine: float, rng: np.random.Generator) -> np.ndarray:
    """Sample a matrix (2,2): rotation, then scale and shear."""
    angle, wider, higher, shear = affine * rng.uniform(-1, 1, 4)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1 + wider, shear], [0, 1 + higher]]) @ np.array([[cos, -sin], [sin, cos]])


def _smooth(height: int, width: int, far: float, rng: np.random.Generator) -> np.ndarray:
    """Sample displacements (H,W) float32 that vary over a quarter of the shorter side, each within -far to far."""
    unit = min(height, width) / CELLS
    nodes = [min(MOST, round(length / unit)) + 1 for length in (height, width)]
    coarse = rng.uniform(-far, far, nodes).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), -far, far)
