"""Shapes as strokes, for the examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragaf_exp.studio.strokes import Stroke

WIDTH = 0.016  # of a line, as a share of the side
Points = Sequence[tuple[float, float]]


def line(points: Points, width: float = WIDTH) -> Stroke:
    """A stroke through points (x, y)."""
    return {"points": [[round(float(x), 4), round(float(y), 4)] for x, y in points], "width": width}


def closed(points: Points) -> Stroke:
    """A closed outline through points."""
    return line([*points, points[0]])


def polygon(x: float, y: float, radius: float, corners: int, turn: float = 0.0) -> Stroke:
    """A regular polygon.

    Args:
        x: Middle, as a share of the width.
        y: Middle, as a share of the height.
        radius: Of the corners.
        corners: Their number.
        turn: Rotation in turns; 0 = a corner at the top.
    """
    angle = 2 * np.pi * (np.arange(corners) / corners + turn)
    return closed(list(zip(x + radius * np.sin(angle), y - radius * np.cos(angle), strict=True)))


def star(x: float, y: float, radius: float, inner: float = 0.45) -> Stroke:
    """A star of five points.

    Args:
        x: Middle, as a share of the width.
        y: Middle, as a share of the height.
        radius: Of the points.
        inner: Radius of the corners between them, as a share of `radius`.
    """
    angle, reach = np.pi * np.arange(10) / 5, radius * np.where(np.arange(10) % 2, inner, 1)
    return closed(list(zip(x + reach * np.sin(angle), y - reach * np.cos(angle), strict=True)))


def arc(x: float, y: float, radius: float, begin: float = 0.0, end: float = 1.0) -> Stroke:
    """A part of a circle, by default all of it.

    Args:
        x: Middle, as a share of the width.
        y: Middle, as a share of the height.
        radius: As a share of the side.
        begin: Where it begins, in turns clockwise from the top.
        end: Where it ends.
    """
    angle = 2 * np.pi * np.linspace(begin, end, 49)
    return line(list(zip(x + radius * np.sin(angle), y - radius * np.cos(angle), strict=True)))


def shaky(stroke: Stroke, amount: float, seed: int) -> Stroke:
    """Redraw a stroke with an unsteady hand.

    Args:
        stroke: The stroke.
        amount: Deviation, as a share of the side.
        seed: Of the deviations.
    """
    corners = np.asarray(stroke["points"], float)
    length = np.r_[0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T))]
    along = np.linspace(0, length[-1], max(12, int(length[-1] / 0.02)))
    points = np.stack([np.interp(along, length, corners[:, axis]) for axis in (0, 1)], 1)
    noise = np.random.default_rng(seed).normal(0, amount, (len(points), 2))
    smooth = np.stack([np.convolve(np.pad(column, 2, mode="wrap"), np.ones(5) / 5, "valid") for column in noise.T], 1)
    return line([(x, y) for x, y in points + 2 * smooth], stroke["width"])
