"""Figures of named parts, such as a house with a roof and a door: outlines in the square [-1,1]^2 with y pointing down.

Parts are listed from back to front. A figure with one part is a plain shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragaf_exp.data.sources.shapes import POINTS, SHAPES

Outline = np.ndarray  # (POINTS,2) float32, a closed polygon


@dataclass(frozen=True)
class Part:
    """A part of a figure: one or several outlines of one colour."""

    name: str
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Figure:
    """A kind of figure."""

    parts: tuple[Part, ...]  # from back to front
    turn: float  # largest rotation either way in radians that keeps it recognisable


def _closed(corners: np.ndarray) -> Outline:
    """Resample a closed polygon (K,2) at even steps."""
    ring = np.vstack([corners, corners[:1]]).astype(np.float64)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))]
    positions = np.arange(POINTS) * length[-1] / POINTS
    return np.stack([np.interp(positions, length, ring[:, i]) for i in (0, 1)], 1).astype(np.float32)


def polygon(*corners: tuple[float, float]) -> Outline:
    """Outline a polygon."""
    return _closed(np.array(corners))


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """Outline a rectangle.

    Args:
        left: Its least x; all sides are in [-1,1].
        top: Its least y.
        right: Its largest x.
        bottom: Its largest y.
    """
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def oval(x: float, y: float, radius: float, height: float = 0.0, first: float = 0.0, last: float = 2 * np.pi) -> Outline:
    """Outline an ellipse, or the part of it between two angles.

    Args:
        x: Of the centre.
        y: Of the centre.
        radius: Along x.
        height: Radius along y; 0 = the same.
        first: Angle in radians at which the arc starts, clockwise from the right.
        last: Angle at which it ends; the ends are joined by a line.
    """
    angle = np.linspace(first, last, 96)
    return _closed(np.stack([x + radius * np.cos(angle), y + (height or radius) * np.sin(angle)], 1))


def spikes(count: int, inner: float, x: float = 0.0, y: float = 0.0, radius: float = 1.0) -> Outline:
    """Outline a star.

    Args:
        count: Number of points.
        inner: Radius of the notches, as a share of the points' radius.
        x: Of the centre.
        y: Of the centre.
        radius: Of the points.
    """
    angle = np.arange(2 * count) * np.pi / count - np.pi / 2
    reach = radius * np.where(np.arange(2 * count) % 2, inner, 1.0)
    return _closed(np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], 1))


def regular(count: int) -> Outline:
    """Outline a regular polygon."""
    angle = np.arange(count) * 2 * np.pi / count - np.pi / 2
    return _closed(np.stack([np.cos(angle), np.sin(angle)], 1))


def lobes(count: int, depth: float) -> Outline:
    """Outline a cloud or a blossom: `count` round lobes, `depth` of the radius deep."""
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    reach = 1 - depth + depth * np.abs(np.cos(count * angle / 2))
    return _closed(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1))


def _drop() -> Outline:
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    return _closed(np.stack([0.75 * np.sin(angle) * np.sin(angle / 2) ** 1.2, -np.cos(angle)], 1))


def _plain(outline: Outline, turn: float = np.pi) -> Figure:
    return Figure((Part("", (outline,)),), turn)


def _figure(turn: float, parts: Sequence[tuple[str, Sequence[Outline]]]) -> Figure:
    return Figure(tuple(Part(name, tuple(outlines)) for name, outlines in parts), turn)


PLAIN: dict[str, Figure] = {name: _plain(shape.outline, shape.turn) for name, shape in SHAPES.items()} | {
    "rectangle": _plain(box(-1, -0.55, 1, 0.55), 0.3),
    "oval": _plain(oval(0, 0, 1, 0.6)),
    "pentagon": _plain(regular(5)),
    "hexagon": _plain(regular(6)),
    "octagon": _plain(regular(8)),
    "arrow": _plain(polygon((-1, -0.28), (0.15, -0.28), (0.15, -0.7), (1, 0), (0.15, 0.7), (0.15, 0.28), (-1, 0.28))),
    "drop": _plain(_drop(), 0.5),
    "cloud": _plain(lobes(7, 0.28) * np.array([1, 0.7], np.float32), 0.2),
    "blossom": _plain(lobes(5, 0.4)),
    "sun": _plain(spikes(10, 0.68)),
    "leaf": _plain(np.concatenate([oval(0, 0.62, 1, 1.1, -2.6, -0.55)[:64], oval(0, -0.62, 1, 1.1, 0.55, 2.6)[:64]])),
    "half circle": _plain(oval(0, 0.4, 1, 1, np.pi, 2 * np.pi), 0.6),
    "trapezoid": _plain(polygon((-0.55, -0.6), (0.55, -0.6), (1, 0.6), (-1, 0.6)), 0.4),
    "lightning bolt": _plain(
        polygon((0.1, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.6, -0.25), (0.08, -0.25), (0.45, -1)), 0.3
    ),
    "crown": _plain(
        polygon((-0.9, 0.65), (-1, -0.6), (-0.45, 0), (0, -0.8), (0.45, 0), (1, -0.6), (0.9, 0.65)), 0.3
    ),
}  # fmt: skip

COMPOSITE: dict[str, Figure] = {
    "house": _figure(0.05, [
        ("wall", [box(-0.75, -0.15, 0.75, 0.95)]),
        ("roof", [polygon((-0.98, -0.15), (0, -0.98), (0.98, -0.15))]),
        ("door", [box(-0.2, 0.3, 0.2, 0.95)]),
        ("window", [box(0.34, 0.1, 0.64, 0.42)]),
    ]),
    "tree": _figure(0.08, [
        ("crown", [lobes(8, 0.16) * np.float32(0.68) + np.array([0, -0.3], np.float32)]),
        ("trunk", [box(-0.16, 0.32, 0.16, 0.98)]),
    ]),
    "pine": _figure(0.08, [
        ("needles", [polygon((0, -1), (0.7, 0.62), (-0.7, 0.62))]),
        ("trunk", [box(-0.15, 0.62, 0.15, 0.98)]),
    ]),
    "face": _figure(0.2, [
        ("skin", [oval(0, 0, 0.92)]),
        ("eyes", [oval(-0.36, -0.22, 0.17), oval(0.36, -0.22, 0.17)]),
        ("mouth", [oval(0, 0.28, 0.45, 0.38, 0, np.pi)]),
    ]),
    "flower": _figure(0.3, [
        ("petals", [lobes(6, 0.42) * np.float32(0.72) + np.array([0, -0.28], np.float32)]),
        ("centre", [oval(0, -0.28, 0.26)]),
        ("stem", [box(-0.09, 0.35, 0.09, 0.98)]),
    ]),
    "car": _figure(0.08, [
        ("body", [polygon((-1, 0.35), (-1, -0.05), (-0.55, -0.1), (-0.3, -0.55), (0.45, -0.55), (0.65, -0.1), (1, 0),
                          (1, 0.35))]),
        ("window", [polygon((-0.35, -0.08), (-0.2, -0.42), (0.38, -0.42), (0.48, -0.08))]),
        ("wheels", [oval(-0.52, 0.36, 0.24), oval(0.52, 0.36, 0.24)]),
    ]),
    "boat": _figure(0.15, [
        ("hull", [polygon((-0.95, 0.4), (0.95, 0.4), (0.6, 0.85), (-0.6, 0.85))]),
        ("sail", [polygon((0.05, -0.95), (0.8, 0.28), (0.05, 0.28))]),
    ]),
    "mushroom": _figure(0.2, [
        ("stem", [box(-0.26, 0.1, 0.26, 0.9)]),
        ("cap", [oval(0, 0.15, 0.92, 0.95, np.pi, 2 * np.pi)]),
    ]),
    "ice cream": _figure(0.3, [
        ("cone", [polygon((-0.45, -0.05), (0.45, -0.05), (0, 0.98))]),
        ("scoop", [oval(0, -0.4, 0.55)]),
    ]),
    "rocket": _figure(0.5, [
        ("fins", [polygon((-0.34, 0.3), (-0.8, 0.9), (-0.34, 0.75)), polygon((0.34, 0.3), (0.8, 0.9), (0.34, 0.75))]),
        ("body", [box(-0.34, -0.4, 0.34, 0.75)]),
        ("nose", [polygon((-0.34, -0.4), (0, -0.98), (0.34, -0.4))]),
        ("window", [oval(0, 0, 0.18)]),
    ]),
    "snowman": _figure(0.08, [
        ("body", [oval(0, 0.5, 0.48)]),
        ("head", [oval(0, -0.2, 0.34)]),
        ("hat", [box(-0.28, -0.95, 0.28, -0.46)]),
    ]),
    "fish": _figure(0.5, [
        ("tail", [polygon((0.4, 0), (0.98, -0.5), (0.98, 0.5))]),
        ("body", [oval(-0.2, 0, 0.78, 0.5)]),
        ("eye", [oval(-0.6, -0.12, 0.13)]),
    ]),
    "cake": _figure(0.05, [
        ("base", [box(-0.85, 0.1, 0.85, 0.8)]),
        ("icing", [box(-0.85, -0.3, 0.85, 0.1)]),
        ("candle", [box(-0.1, -0.95, 0.1, -0.3)]),
    ]),
    "gift": _figure(0.15, [
        ("box", [box(-0.8, -0.55, 0.8, 0.8)]),
        ("ribbon", [box(-0.16, -0.55, 0.16, 0.8)]),
    ]),
    "cup": _figure(0.15, [
        ("handle", [oval(0.55, 0, 0.42)]),
        ("body", [polygon((-0.75, -0.6), (0.6, -0.6), (0.5, 0.7), (-0.65, 0.7))]),
    ]),
    "apple": _figure(0.2, [
        ("fruit", [oval(-0.02, 0.2, 0.78, 0.74)]),
        ("leaf", [oval(0.34, -0.66, 0.3, 0.17)]),
    ]),
    "pencil": _figure(np.pi, [
        ("shaft", [box(-0.55, -0.2, 0.6, 0.2)]),
        ("tip", [polygon((-0.55, -0.2), (-1, 0), (-0.55, 0.2))]),
        ("eraser", [box(0.6, -0.2, 0.9, 0.2)]),
    ]),
    "robot": _figure(0.08, [
        ("body", [box(-0.6, -0.1, 0.6, 0.9)]),
        ("head", [box(-0.4, -0.85, 0.4, -0.1)]),
        ("eyes", [oval(-0.17, -0.48, 0.12), oval(0.17, -0.48, 0.12)]),
    ]),
    "umbrella": _figure(0.3, [
        ("canopy", [oval(0, 0.05, 0.95, 0.95, np.pi, 2 * np.pi)]),
        ("handle", [box(-0.08, 0.05, 0.08, 0.95)]),
    ]),
    "target": _figure(np.pi, [
        ("ring", [oval(0, 0, 0.95)]),
        ("middle", [oval(0, 0, 0.5)]),
    ]),
    "traffic light": _figure(0.1, [
        ("case", [box(-0.4, -1, 0.4, 1)]),
        ("top lamp", [oval(0, -0.6, 0.24)]),
        ("middle lamp", [oval(0, 0, 0.24)]),
        ("bottom lamp", [oval(0, 0.6, 0.24)]),
    ]),
}  # fmt: skip


def inside(outer: str, inner: str) -> Figure:
    """Nest one plain shape in another, as the part "<inner> inside"."""
    body = PLAIN[outer].parts[0].outlines[0]
    core = PLAIN[inner].parts[0].outlines[0] * np.float32(0.42)
    return Figure((Part("", (body,)), Part(f"{inner} inside", (core,))), PLAIN[outer].turn)


NESTING = ("circle", "square", "hexagon", "octagon", "pentagon")  # wide enough to hold another shape
