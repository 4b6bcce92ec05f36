"""A picture of regions and their graph, for people."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from ragaf_exp.core.types import Graph, Regions

SHORTEST, LONGEST = 256, 1024  # pixels: small sketches are enlarged to the first, never beyond the second
PAPER = (225, 225, 225)
INK = (35, 35, 35)
GOLDEN = 0.618034  # hues a golden section apart never come close to the ones just before


def region_overlay(sketch: np.ndarray, regions: Regions, graph: Graph | None = None) -> np.ndarray:
    """Regions in distinct colours (background grey), strokes dark, numbers where they fit, edges as lines.

    sketch (H,W) float in [0,1]; graph None = no edges. Returns uint8 RGB (h,w,3), a whole multiple of the
    sketch's size. Lines and numbers start at each region's innermost pixel, which lies in it even in a ring.
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


def _factor(shape: tuple[int, int]) -> int:
    """How many times to enlarge."""
    return max(1, min(-(-SHORTEST // min(shape)), LONGEST // max(shape)))


def _palette(regions: Regions) -> np.ndarray:
    """(N+1,3) float32 RGB; the last row, which index -1 finds, is paper."""
    hues = (GOLDEN * np.arange(regions.count)) % 1
    colours = [colorsys.hsv_to_rgb(hue, 0.45 + 0.2 * (i % 2), 0.95) for i, hue in enumerate(hues)]
    palette = np.array([*colours, (1, 1, 1)], np.float32) * 255
    if regions.background >= 0:
        palette[regions.background] = PAPER
    return palette


def _anchors(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The innermost pixel of each region, (N,2) int as x, y, and how far the border is from it, (N,)."""
    edge = np.ones((labels.shape[0] + 2, labels.shape[1] + 2), np.uint8)
    inside = edge[1:-1, 1:-1]
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    inside[1:] &= labels[1:] == labels[:-1]
    edge[0] = edge[-1] = edge[:, 0] = edge[:, -1] = 0
    depth = cv2.distanceTransform(edge, cv2.DIST_L2, 5)[1:-1, 1:-1].ravel()
    by_depth = np.argsort(depth, kind="stable")
    deepest = np.zeros(count + 1, np.int64)
    deepest[labels.ravel()[by_depth]] = by_depth  # the last write, the deepest, stays
    deepest = deepest[:count]
    return np.stack([deepest % labels.shape[1], deepest // labels.shape[1]], axis=1), depth[deepest]


def _draw_edges(picture: np.ndarray, anchors: np.ndarray, mask: np.ndarray) -> None:
    for i, j in np.argwhere(np.triu(mask | mask.T, 1)).tolist():
        cv2.line(picture, anchors[i].tolist(), anchors[j].tolist(), (20, 90, 200), 1, cv2.LINE_AA)
    linked = (mask | mask.T) & ~np.eye(len(mask), dtype=bool)
    for i in np.flatnonzero(linked.any(axis=1)):
        cv2.circle(picture, anchors[i].tolist(), 3, (20, 90, 200), cv2.FILLED, cv2.LINE_AA)


def _draw_numbers(picture: np.ndarray, anchors: np.ndarray, room: np.ndarray) -> None:
    """Write each region's index into it where a number fits."""
    for i in np.flatnonzero(room >= 9).tolist():
        text, (x, y) = str(i), anchors[i].tolist()
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        cv2.circle(picture, (x, y), 9, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        place = (x - width // 2, y + height // 2)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
