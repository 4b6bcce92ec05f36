"""Shape descriptors of regions, invariant to position, size and rotation."""

from __future__ import annotations

import math

import numpy as np

from ragaf_exp.core.jit import compiled

BINS = 24  # directions from the centroid
HARMONICS = 8
HALF_BINS = tuple(math.tan(math.radians(angle)) for angle in (7.5, 22.5, 37.5))  # bounds between directions


def fourier_descriptors(labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Compute magnitudes of harmonics 1 to HARMONICS of the radius profile, relative to its mean.

    The profile is the distance to the farthest outline pixel in each of BINS directions from the centroid; magnitudes
    are invariant to rotation (Zahn & Roskies 1972, Fourier descriptors for plane closed curves).

    Args:
        labels: (H,W) int, -1 = no region.
        centres: (N,2) x and y of the centroids, in pixels.

    Returns:
        (N,HARMONICS) float32, 0 = a disc.
    """
    spectrum = np.abs(np.fft.rfft(_profile(labels, centres), axis=1))
    return (spectrum[:, 1 : HARMONICS + 1] / np.maximum(spectrum[:, :1], 1e-6)).astype(np.float32)


@compiled
def _profile(labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Measure the radius (N,BINS) to half a pixel beyond the farthest outline pixel per direction; 0 without one."""
    height, width = labels.shape
    farthest = np.zeros((len(centres), BINS))  # squared
    for y in range(height):
        above, row, below = labels[max(y - 1, 0)], labels[y], labels[min(y + 1, height - 1)]
        rim = y == 0 or y == height - 1
        for x in range(width):
            region = row[x]
            outline = rim or x == 0 or x == width - 1 or (
                (row[x - 1] != region) | (row[x + 1] != region) | (above[x] != region) | (below[x] != region)
            )  # fmt: skip
            if outline and region >= 0:
                dx, dy = x - centres[region, 0], y - centres[region, 1]
                direction = _direction(dx, dy)
                farthest[region, direction] = max(farthest[region, direction], dx * dx + dy * dy)
    return np.where(farthest > 1e-12, np.sqrt(farthest) + 0.5, 0)  # the centroid itself lies in no direction


@compiled
def _direction(dx: float, dy: float) -> int:
    """Return the nearest of BINS directions, counted from x towards y; mirrored offsets have mirrored directions."""
    across, along = min(abs(dx), abs(dy)), max(abs(dx), abs(dy))
    turns = (across >= HALF_BINS[0] * along) + (across >= HALF_BINS[1] * along) + (across >= HALF_BINS[2] * along)
    if abs(dy) > abs(dx):
        turns = 6 - turns
    if dx < 0:
        turns = 12 - turns
    return 24 - turns if dy < 0 and turns else turns
