"""Overlays of regions and their graph on a sketch."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from ragaf_exp.core.types import Example, Graph, Regions

SHORTEST, LONGEST = 256, 1024  # px: small sketches are enlarged to the first, but not beyond the second
PAPER = (225, 225, 225)
INK = (35, 35, 35)
GOLDEN = 0.618034  # hues a golden section apart differ clearly from their predecessors


def region_overlay(sketch: np.ndarray, regions: Regions, graph: Graph | None = None) -> np.ndarray:
    """Paint regions in distinct colours (background grey) with dark strokes, numbers that fit, and edges as lines.

    Lines and numbers are anchored at each region's innermost pixel, which is inside the region even for a ring.

    Args:
        sketch: (H,W) float in [0,1], 1 = stroke.
        regions: The regions of the sketch.
        graph: The graph whose edges are drawn; None draws none.

    Returns:
        (h,w,3) uint8 RGB, a whole multiple of the sketch's size.
    """
    factor = _factor(sketch.shape)
    labels = regions.labels.repeat(factor, 0).repeat(factor, 1)
    ink = np.clip(sketch, 0, 1).astype(np.float32).repeat(factor, 0).repeat(factor, 1)[..., None]
    painted = _palette(regions)[labels] * (1 - ink) + np.array(INK, np.float32) * ink
    picture = np.ascontiguousarray(painted.round().astype(np.uint8))
    anchors, room = _anchors(labels, regions.count)
    if graph is not None:
        _draw_edges(picture, anchors, graph.edge_mask)
    _draw_numbers(picture, anchors, room)
    return picture


def regions_of(example: Example) -> np.ndarray:
    """The overlay of an example's regions and graph."""
    return region_overlay(example.sketch, example.regions, example.graph)


def _factor(shape: tuple[int, int]) -> int:
    """The integer factor by which to enlarge."""
    return max(1, min(-(-SHORTEST // min(shape)), LONGEST // max(shape)))


def _palette(regions: Regions) -> np.ndarray:
    """(N+1,3) float32 RGB; the last row, reached by index -1, is white."""
    hues = (GOLDEN * np.arange(regions.count)) % 1
    colours = [colorsys.hsv_to_rgb(hue, 0.45 + 0.2 * (i % 2), 0.95) for i, hue in enumerate(hues)]
    palette = np.array([*colours, (1, 1, 1)], np.float32) * 255
    if regions.background >= 0:
        palette[regions.background] = PAPER
    return palette


def _anchors(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The innermost pixel of each region, (N,2) int as x, y, and its distance from the border, (N,) px."""
    edge = np.ones((labels.shape[0] + 2, labels.shape[1] + 2), np.uint8)
    inside = edge[1:-1, 1:-1]
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    inside[1:] &= labels[1:] == labels[:-1]
    edge[0] = edge[-1] = edge[:, 0] = edge[:, -1] = 0
    depth = cv2.distanceTransform(edge, cv2.DIST_L2, 5)[1:-1, 1:-1].ravel()
    by_depth = np.argsort(depth, kind="stable")
    deepest = np.zeros(count + 1, np.int64)
    deepest[labels.ravel()[by_depth]] = by_depth  # the last write, the deepest, wins
    deepest = deepest[:count]
    return np.stack([deepest % labels.shape[1], deepest // labels.shape[1]], axis=1), depth[deepest]


def _draw_edges(picture: np.ndarray, anchors: np.ndarray, mask: np.ndarray) -> None:
    for i, j in np.argwhere(np.triu(mask | mask.T, 1)).tolist():
        cv2.line(picture, anchors[i].tolist(), anchors[j].tolist(), (20, 90, 200), 1, cv2.LINE_AA)
    linked = (mask | mask.T) & ~np.eye(len(mask), dtype=bool)
    for i in np.flatnonzero(linked.any(axis=1)):
        cv2.circle(picture, anchors[i].tolist(), 3, (20, 90, 200), cv2.FILLED, cv2.LINE_AA)


def _draw_numbers(picture: np.ndarray, anchors: np.ndarray, room: np.ndarray) -> None:
    """Write the index of each region into it, if a number fits."""
    for i in np.flatnonzero(room >= 9).tolist():
        text, (x, y) = str(i), anchors[i].tolist()
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        cv2.circle(picture, (x, y), 9, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        corner = (x - width // 2, y + height // 2)
        cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
