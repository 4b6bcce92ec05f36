"""Node and edge features of a region graph, all regions at once.

Coordinates run over [-1,1] along each side of the picture, x to the right, y down. Every feature is absolute,
never normalised per graph, so that position and size keep their meaning from picture to picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragaf_exp.graph.descriptors import HARMONICS, fourier_descriptors
from ragaf_exp.regions.borders import crossings
from ragaf_exp.regions.growth import fill
from ragaf_exp.types import Regions

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
    *(f"harmonic_{k}" for k in range(1, HARMONICS + 1)),  # Fourier descriptors of the outline, 0 = a disc
)
EDGE_FEATURES = (
    "dx",  # centroid of j minus centroid of i, [-2,2]
    "dy",
    "distance",  # length of (dx, dy)
    "border",  # length of the common border, fraction of the smaller perimeter
    "log_size_ratio",  # ln(area of j / area of i)
    "adjacent",  # 1 where i and j share a border
)


@dataclass(frozen=True)
class Geometry:
    """What graph types decide edges by. N regions."""

    nodes: np.ndarray  # (N,F) float32, in the order of NODE_FEATURES
    offset: np.ndarray  # (N,N,2) float32, centroid of j minus centroid of i
    distance: np.ndarray  # (N,N) float32
    border: np.ndarray  # (N,N) float32, fraction of the smaller perimeter; 0 where they only meet at a corner


def geometry(regions: Regions) -> Geometry:
    """Measure the regions. Where strokes belong to no region, borders run along the strokes' middle."""
    labels, n = regions.labels, regions.count
    straight, length = _contacts(labels, n)
    perimeter = length.sum(axis=1)[:n]
    if n and labels.min() < 0:
        straight, length = _contacts(fill(labels), n)
    smaller = np.minimum(perimeter[:, None], perimeter[None, :])
    border = np.where(straight[:n, :n] > 0, np.minimum(length[:n, :n] / np.maximum(smaller, 1e-6), 1), 0)
    nodes = _node_features(labels, n, perimeter, regions.background)
    offset = nodes[None, :, :2] - nodes[:, None, :2]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    return Geometry(nodes=nodes, offset=offset, distance=distance, border=border.astype(np.float32))


def edge_features(shape: Geometry) -> np.ndarray:
    """(N,N,E) float32 in the order of EDGE_FEATURES, for every pair i -> j."""
    log_area = np.log(shape.nodes[:, NODE_FEATURES.index("area")])
    ratio = log_area[None, :] - log_area[:, None]
    parts = (shape.distance, shape.border, ratio, shape.border > 0)
    return np.concatenate([shape.offset, np.stack(parts, axis=-1)], axis=-1, dtype=np.float32)


def _node_features(labels: np.ndarray, n: int, perimeter: np.ndarray, background: int) -> np.ndarray:
    height, width = labels.shape
    owner = np.where(labels < 0, n, labels).astype(np.intp)
    columns = np.bincount((owner * width + np.arange(width)).ravel(), minlength=(n + 1) * width)
    rows = np.bincount((owner * height + np.arange(height)[:, None]).ravel(), minlength=(n + 1) * height)
    area, cx, box_width = _profile(columns.reshape(n + 1, width)[:n])
    _, cy, box_height = _profile(rows.reshape(n + 1, height)[:n])
    share = area / labels.size
    compactness = np.minimum(4 * np.pi * area / np.maximum(perimeter, 1e-6) ** 2, 1)
    features = (
        *(cx, cy, box_width / width, box_height / height, share, np.sqrt(share)),
        *(np.log(box_width / box_height), compactness, np.arange(n) == background),
    )
    centres = np.stack([(cx + 1) / 2 * width - 0.5, (cy + 1) / 2 * height - 0.5], axis=-1)  # in pixels
    harmonics = fourier_descriptors(labels, centres)
    return np.concatenate([np.stack(features, axis=-1), harmonics], axis=-1).astype(np.float32)


def _profile(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each region's pixel counts per column (N,W) -> area, centre in [-1,1], extent in pixels; (N,) each."""
    size = counts.shape[1]
    area = counts.sum(axis=1)
    centre = counts @ ((2 * np.arange(size) + 1) / size - 1) / area
    present = counts > 0
    extent = size - present[:, ::-1].argmax(axis=1) - present.argmax(axis=1)
    return area, centre, extent


def _contacts(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Borders between all pairs of regions, number n being what lies outside them; both (n+1,n+1) symmetric.

    Returns the number of 4-neighbour pixel pairs and the length in pixels. Lengths by Cauchy-Crofton with four
    directions: pi/8 times the crossings, diagonals weighed 1/sqrt(2); unlike counted pixel sides they hardly
    depend on how a border is turned.
    """
    straight = crossings(labels, n)
    return straight, np.pi / 8 * (straight + crossings(labels, n, diagonal=True) / np.sqrt(2))
