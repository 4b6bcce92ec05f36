"""Outlines of the scene shapes, closed polygons inside the unit circle with y pointing down, and their wobble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POINTS = 128  # outline points per shape, evenly spaced along its length


@dataclass(frozen=True)
class Shape:
    """A kind of shape."""

    outline: np.ndarray  # (POINTS, 2) float32, inside the unit circle
    turn: float  # largest rotation either way in radians that keeps it recognisable
    hollow_radius: float  # smallest bounding radius, in 64ths of the image side, at which its ring has a hole


def _resample(corners: np.ndarray) -> np.ndarray:
    """Resample a closed polygon (K, 2) to (POINTS, 2) at even steps, scaled into the unit circle."""
    closed = np.vstack([corners, corners[:1]]).astype(np.float64)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))]
    positions = np.arange(POINTS) * length[-1] / POINTS
    points = np.stack([np.interp(positions, length, closed[:, i]) for i in (0, 1)], 1)
    return (points / np.linalg.norm(points, axis=1).max()).astype(np.float32)


def _polar(radii: list[float]) -> np.ndarray:
    """Place corners at equal angles and the given radii, the first straight up."""
    angle = np.arange(len(radii)) * 2 * np.pi / len(radii) - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], 1) * np.array(radii)[:, None]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], 1)


def _cross(arm: float = 0.42) -> np.ndarray:
    end = np.sqrt(1 - arm**2)
    quarter = np.array([(arm, -end), (arm, -arm), (end, -arm)])
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in np.arange(4) * np.pi / 2]
    return np.vstack([quarter @ turn.T for turn in turns])


def _moon(bite: float = 0.8, shift: float = 0.62) -> np.ndarray:
    """Outline the unit disc minus a disc of radius `bite` centred `shift` to the right, centred on its bounding box."""
    meet = (1 + shift**2 - bite**2) / (2 * shift)
    outer, inner = np.arccos(meet), np.arctan2(np.sqrt(1 - meet**2), meet - shift)
    back = np.linspace(outer, 2 * np.pi - outer, 120)
    front = np.linspace(2 * np.pi - inner, inner, 80)[1:-1]
    disc = np.stack([np.cos(back), np.sin(back)], 1)
    hollow = np.stack([bite * np.cos(front) + shift, bite * np.sin(front)], 1)
    return np.vstack([disc, hollow]) + (0.2, 0)


SHAPES: dict[str, Shape] = {
    "circle": Shape(_resample(_polar([1.0] * 256)) * np.float32(0.9), np.pi, 8.0),
    "square": Shape(_resample(_polar([1.0] * 4) @ np.array([[1, 1], [-1, 1]])), 0.35, 9.5),
    "triangle": Shape(_resample(_polar([1.0] * 3)), np.pi, 12.0),
    "star": Shape(_resample(_polar([1.0, 0.5] * 5)), np.pi, 12.0),
    "heart": Shape(_resample(_heart()), 0.35, 10.5),
    "diamond": Shape(_resample(_polar([1.0, 0.64] * 2)), 0.3, 11.5),
    "cross": Shape(_resample(_cross()), np.pi / 4, 12.0),
    "moon": Shape(_resample(_moon()), 0.45, 13.5),
}
SHAPE_NAMES = tuple(SHAPES)

_TURN = np.arange(POINTS, dtype=np.float32) * np.float32(2 * np.pi / POINTS)


def _waves(first: int, last: int) -> np.ndarray:
    """Compute cosines, then sines, of the harmonics first..last along an outline: (2 * count, POINTS) float32."""
    phase = np.arange(first, last + 1, dtype=np.float32)[:, None] * _TURN
    waves = np.concatenate([np.cos(phase), np.sin(phase)])
    return (waves / np.sqrt(last + 1 - first)).astype(np.float32)


_SLOW, _FAST = _waves(2, 5), _waves(3, 12)


def wobble(rng: np.random.Generator, amount: float) -> np.ndarray:
    """Sample low-frequency radial factors (POINTS,) around 1, as of a steady hand."""
    return 1 + amount * np.clip(rng.standard_normal(len(_SLOW), np.float32) @ _SLOW, -2, 2)


def tremor(rng: np.random.Generator, limit: float) -> np.ndarray:
    """Sample displacements (POINTS, 2) of faster, smaller jitter, each shorter than `limit`."""
    shake = rng.standard_normal((2, len(_FAST)), np.float32) @ _FAST
    length = np.sqrt((shake**2).sum(0))
    return (shake * (limit / np.maximum(length, 2.5))).T


def turned(rng: np.random.Generator, turn: float) -> np.ndarray:
    """Sample a rotation by up to `turn` radians either way, mirrored half of the time: (2,2) float32, for row vectors."""
    angle = (2 * rng.random() - 1) * turn
    flip = 1.0 if rng.random() < 0.5 else -1.0
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos * flip, sin * flip], [-sin, cos]], np.float32)


def pose(shape: Shape, rng: np.random.Generator, radius: float, amount: float = 0.02) -> np.ndarray:
    """Rotate, mirror and wobble an outline at random.

    Args:
        shape: The shape.
        rng: Random generator.
        radius: Bounding radius of the result.
        amount: Strength of the wobble, relative to the radius.

    Returns:
        (POINTS, 2) outline around the origin.
    """
    matrix = turned(rng, shape.turn)
    factors = wobble(rng, amount)
    return (shape.outline @ matrix) * (radius * factors / factors.max())[:, None]
