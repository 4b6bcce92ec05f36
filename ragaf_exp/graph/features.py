"""Node and edge features of a region graph, vectorised over regions.

Coordinates run over [-1,1] along each side of the picture, x to the right, y down. Every feature is absolute,
not normalised per graph, so that position and size have the same meaning in every picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragaf_exp.core.jit import compiled
from ragaf_exp.core.types import Regions
from ragaf_exp.graph.descriptors import HARMONICS, fourier_descriptors
from ragaf_exp.regions.borders import crossings
from ragaf_exp.regions.growth import fill

DEEP = 4  # levels of nesting that count as 1
NODE_FEATURES = (
    "cx",  # centroid, [-1,1]
    "cy",
    "width",  # of the bounding box, fraction of the picture's
    "height",
    "area",  # fraction of the picture
    "sqrt_area",
    "log_aspect",  # ln(width / height), in pixels
    "compactness",  # 4 pi area / perimeter^2, 1 = a disc
    "background",  # 1 or 0
    "depth",  # number of enclosing regions / 4
    *(f"harmonic_{k}" for k in range(1, HARMONICS + 1)),  # Fourier descriptors of the outline, 0 = a disc
)
EDGE_FEATURES = (
    "dx",  # centroid of j minus centroid of i, in the picture's frame, [-2,2]
    "dy",
    "dx_own",  # dx in the frame of i, (-1,1): 1/2 at the edge of its box, near 1 far away
    "dy_own",
    "distance",  # length of (dx, dy)
    "border",  # length of the common border, fraction of the smaller perimeter
    "log_size_ratio",  # ln(area of j / area of i)
    "adjacent",  # 1 where i and j share a border
    "contains",  # 1 where j lies within i, at any level
    "inside",  # 1 where i lies within j
)


@dataclass(frozen=True)
class Geometry:
    """Geometry of N regions, from which graph types choose edges."""

    nodes: np.ndarray  # (N,F) float32, in the order of NODE_FEATURES
    offset: np.ndarray  # (N,N,2) float32, centroid of j minus centroid of i
    distance: np.ndarray  # (N,N) float32
    border: np.ndarray  # (N,N) float32, fraction of the smaller perimeter; 0 where they only meet at a corner
    parent: np.ndarray  # (N,) int16, -1 = none
    depth: np.ndarray  # (N,) int16


def geometry(regions: Regions) -> Geometry:
    """Measure the regions. Where strokes belong to no region, borders run along the middle of strokes."""
    labels, n = regions.labels, regions.count
    straight, length = _contacts(labels, n)
    perimeter = length.sum(axis=1)[:n]
    if n and labels.min() < 0:
        straight, length = _contacts(fill(labels), n)
    smaller = np.minimum(perimeter[:, None], perimeter[None, :])
    border = np.where(straight[:n, :n] > 0, np.minimum(length[:n, :n] / np.maximum(smaller, 1e-6), 1), 0)
    nodes = _node_features(regions, perimeter)
    offset = nodes[None, :, :2] - nodes[:, None, :2]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    return Geometry(nodes, offset, distance, border.astype(np.float32), regions.parent, regions.depth)


def edge_features(shape: Geometry) -> np.ndarray:
    """Compute edge features (N,N,E) float32 in the order of EDGE_FEATURES, for every pair i -> j."""
    log_area = np.log(shape.nodes[:, NODE_FEATURES.index("area")])
    box = NODE_FEATURES.index("width")
    own = shape.offset / shape.nodes[:, None, box : box + 2]  # half a box, which is its width in [-1,1], is 1
    contains = ancestors(shape.parent)
    parts = (shape.distance, shape.border, log_area[None, :] - log_area[:, None], shape.border > 0, contains, contains.T)
    together = (shape.offset, own / (1 + np.abs(own)), np.stack(parts, axis=-1))
    return np.concatenate(together, axis=-1, dtype=np.float32)


@compiled
def ancestors(parent: np.ndarray) -> np.ndarray:
    """Compute the ancestor relation (N,N) bool: i is the parent of j, or the parent of its parent, and so on."""
    contains = np.zeros((len(parent), len(parent)), np.bool_)
    for child in range(len(parent)):
        above = parent[child]
        while above >= 0:
            contains[above, child] = True
            above = parent[above]
    return contains


def _node_features(regions: Regions, perimeter: np.ndarray) -> np.ndarray:
    n, (height, width) = regions.count, regions.labels.shape
    area, x, y, left, right, top, bottom = _boxes(regions.labels, n)
    cx, cy = x / area, y / area  # in pixels
    box_width, box_height, share = right - left + 1, bottom - top + 1, area / regions.labels.size
    compactness = np.minimum(4 * np.pi * area / np.maximum(perimeter, 1e-6) ** 2, 1)
    features = (
        *((2 * cx + 1) / width - 1, (2 * cy + 1) / height - 1, box_width / width, box_height / height),
        *(share, np.sqrt(share), np.log(box_width / box_height), compactness),
        *(np.arange(n) == regions.background, regions.depth / DEEP),
    )
    harmonics = fourier_descriptors(regions.labels, np.stack([cx, cy], axis=-1))
    return np.concatenate([np.stack(features, axis=-1), harmonics], axis=-1, dtype=np.float32)


@compiled
def _boxes(labels: np.ndarray, n: int) -> np.ndarray:
    """Compute area, sums of x and of y, and first and last column and row of each region: (7,N) float64."""
    height, width = labels.shape
    area, across, down = np.zeros(n), np.zeros(n), np.zeros(n)
    left, right, top, bottom = np.full(n, width), np.zeros(n, np.int64), np.full(n, height), np.zeros(n, np.int64)
    for y in range(height):
        end = 0
        while end < width:  # one run of a region's pixels after another
            start, region = end, labels[y, end]
            while end < width and labels[y, end] == region:
                end += 1
            if region >= 0:
                area[region] += end - start
                across[region] += (end - start) * (start + end - 1) / 2
                down[region] += (end - start) * y
                left[region], right[region] = min(left[region], start), max(right[region], end - 1)
                top[region], bottom[region] = min(top[region], y), y
    return np.stack((area, across, down, left * 1.0, right * 1.0, top * 1.0, bottom * 1.0))


def _contacts(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure the borders between all pairs of regions; index n is the outside.

    Lengths are estimated by Cauchy-Crofton with four directions: pi/8 times the crossings, diagonals weighted by
    1/sqrt(2). Unlike counted pixel sides, they hardly depend on the orientation of a border.

    Returns:
        The number of 4-neighbour pixel pairs and the length in pixels, both (n+1,n+1) and symmetric.
    """
    straight, diagonal = crossings(labels, n)
    return straight, np.pi / 8 * (straight + diagonal / np.sqrt(2))
