"""Drawings, label maps and quarter-turns that the tests of regions and graphs share."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import strategies as st
from scipy.ndimage import label as components

from ragaf_exp.core.types import Graph, Regions
from ragaf_exp.graph import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.regions.borders import crossings
from ragaf_exp.regions.growth import fill
from ragaf_exp.regions.hierarchy import nest

SEEDS = st.integers(0, 10**6)
TURNS = {
    "upside down": (lambda a: a[::-1], lambda a: a[::-1]),
    "mirrored": (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    "transposed": (lambda a: a.T, lambda a: a.T),
    "quarter-turned": (lambda a: np.rot90(a), lambda a: np.rot90(a, -1)),
}  # name -> there and back


@st.composite
def drawings(draw: st.DrawFn, speckled: bool = True) -> np.ndarray:
    """Random lines, circles and boxes, strokes 1 to 3 wide, at odd sizes, sometimes speckled."""
    rng = np.random.default_rng(draw(SEEDS))
    canvas = np.zeros(rng.integers(1, 44, 2), np.uint8)
    for _ in range(draw(st.integers(0, 8))):
        a, b = rng.integers(0, 44, (2, 2)).tolist()
        width = int(rng.integers(1, 4))
        kind = rng.integers(3)
        if kind == 0:
            cv2.line(canvas, a, b, 255, width)
        elif kind == 1:
            cv2.rectangle(canvas, a, b, 255, width)
        else:
            cv2.circle(canvas, a, int(rng.integers(1, 30)), 255, width)
    if speckled and draw(st.booleans()):
        canvas[rng.random(canvas.shape) < draw(st.sampled_from([0.02, 0.3, 0.6]))] = 255
    return canvas / np.float32(255)


def figure(*commands: tuple, size: int = 64) -> np.ndarray:
    """A drawing from (cv2 function, arguments) pairs."""
    canvas = np.zeros((size, size), np.uint8)
    for command, *arguments in commands:
        command(canvas, *arguments)
    return canvas / np.float32(255)


def rings(*radii: int) -> np.ndarray:
    """Circles around the middle of a 64x64 drawing."""
    return figure(*((cv2.circle, (32, 32), radius, 255, 1) for radius in radii))


HOUSE = {"outside": (0, 0), "frame": (8, 8), "wall": (52, 32), "roof": (22, 32), "door": (50, 23), "pane": (40, 40)}


def house() -> np.ndarray:
    """A house with roof, door and window in a frame: 6 regions with the ground outside, at the places in HOUSE."""
    return figure(
        (cv2.rectangle, (3, 3), (60, 60), 255, 1),
        (cv2.rectangle, (14, 30), (50, 56), 255, 1),
        (cv2.polylines, [np.array([(14, 30), (32, 10), (50, 30)])], True, 255, 1),
        (cv2.rectangle, (19, 42), (27, 56), 255, 1),
        (cv2.rectangle, (34, 36), (45, 45), 255, 1),
    )


def house_places(regions: Regions) -> dict[str, int]:
    """The region at each place of the house."""
    return {name: int(regions.labels[place]) for name, place in HOUSE.items()}


def nested(labels: np.ndarray, background: int = 0, levels: int = 32) -> Regions:
    """Regions of a label map (H,W), -1 = none, every index below the highest in use."""
    labels = np.ascontiguousarray(labels, np.int16)
    count = int(labels.max(initial=-1)) + 1
    straight, diagonal = crossings(fill(labels), count)
    return Regions(labels, count, background, *nest(straight + diagonal > 0, levels))


def mosaic(seed: int) -> np.ndarray:
    """A label map of 1 to some 40 connected areas, many of them within others: (H,W) int16."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    values = np.kron(rng.integers(0, 2 + seed % 2, (height, width)), np.ones(rng.integers(1, 4, 2), int))[:30, :30]
    labels, count = np.full(values.shape, -1, np.int16), 0
    for value in np.unique(values):
        parts, number = components(values == value)
        labels[parts > 0] = (parts[parts > 0] + count - 1).astype(np.int16)
        count += number
    return labels


def voronoi(seed: int) -> np.ndarray:
    """A label map of 1 to 12 cells of a random Voronoi diagram, some with pixels of no region: (H,W) int16."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(8, 40, 2)
    sites = rng.random((rng.integers(1, 13), 2)) * (height, width)
    pixels = np.stack(np.mgrid[:height, :width], axis=-1) + 0.5
    cells = np.linalg.norm(pixels[:, :, None] - sites, axis=-1).argmin(axis=-1)
    sites_used, labels = np.unique(cells, return_inverse=True)
    labels = labels.reshape(height, width).astype(np.int16)
    lost = np.where(rng.random(labels.shape) < rng.choice([0, 0.1]), np.int16(-1), labels)
    return lost if len(np.unique(lost[lost >= 0])) == len(sites_used) else labels


def random_regions(seed: int) -> Regions:
    """Voronoi cells or a mosaic, with a background anywhere."""
    labels = voronoi(seed) if seed % 2 else mosaic(seed // 2)
    return nested(labels, background=seed % (int(labels.max()) + 1))


def turned(regions: Regions, turn: str) -> Regions:
    """Regions turned as their sketch is turned."""
    return nested(TURNS[turn][0](regions.labels), regions.background)


def feature(graph: Graph, name: str) -> np.ndarray:
    """A node feature (N,) or an edge feature (N,N) by its name."""
    if name in NODE_FEATURES:
        return graph.nodes[:, NODE_FEATURES.index(name)]
    return graph.edges[..., EDGE_FEATURES.index(name)]
